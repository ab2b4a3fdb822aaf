"""Axis letters: one alphabet for every tensor in dynops.

    b  batch            g  group: owns a kernel
    k  tap of a window  o  fan-out of a group
    h  row              i  input of a group, summed over
    w  column           s  share: channels of a group that share one kernel
    t  frame or slice

C_in = g*i*s and C_out = g*o*s. A kernel has the axes `b g o i k h w`, a value `b g i s h w`, their sum `b g o s h w`;
the grid is `h w` for images, `w` for sequences, `t h w` for video and volumes.
"""

from collections.abc import Mapping

from torch import Tensor

from dynops.errors import ShapeError

GRIDS = {1: "w", 2: "h w", 3: "t h w"}


def kernel_axes(dims: int) -> str:
    """Axes of a kernel on a grid of 1, 2 or 3 dimensions."""
    return f"b g o i k {GRIDS[dims]}"


def value_axes(dims: int) -> str:
    """Axes of a value."""
    return f"b g i s {GRIDS[dims]}"


def feature_axes(dims: int) -> str:
    """Axes of features: what goes into an operator and comes out."""
    return f"b c {GRIDS[dims]}"


def bind(
    name: str, tensor: Tensor, axes: str, sizes: Mapping[str, int] | None = None, *, ones: bool = False
) -> dict[str, int]:
    """Bind the axis letters of a tensor to its sizes, beside letters bound before.

    Args:
        name: what the message calls the tensor.
        tensor: one axis for each letter of `axes`.
        axes: letters, separated by blanks.
        sizes: letters that are bound already.
        ones: an axis of size 1 fits any size (it is constant along that axis) and binds nothing.
    Returns:
        All letters bound so far.
    Raises:
        ShapeError: the number of axes is wrong, or a letter has two sizes.

    >>> import torch
    >>> bind("x", torch.zeros(2, 3, 4, 5), "b c h w")
    {'b': 2, 'c': 3, 'h': 4, 'w': 5}
    """
    letters = axes.split()
    if tensor.dim() != len(letters):
        raise ShapeError(
            f"{name} has shape {tuple(tensor.shape)} with {tensor.dim()} axes: must have {len(letters)}, `{axes}`."
        )
    bound = dict(sizes or {})
    for letter, size in zip(letters, tensor.shape, strict=True):
        if ones and size == 1:
            continue
        known = bound.setdefault(letter, size)
        if known != size:
            legal = f"{known}, or 1 to be constant along {letter}" if ones else f"{known}"
            raise ShapeError(f"{name} has {letter}={size} in `{axes}`: must be {legal}.")
    return bound


def divisors(number: int) -> str:
    """The divisors of a positive number, as text for a message.

    >>> divisors(12)
    '1, 2, 3, 4, 6, 12'
    """
    return ", ".join(str(d) for d in range(1, number + 1) if number % d == 0)
