"""Local sums as operators of torch: three that are each other's derivatives, whatever engine computes them.

Each is linear in both of its inputs, and the other two are its gradients: so derivatives of every order, of autograd
and of `torch.func`, are sums of the same kind, and no window is ever gathered.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from dynops.ops.call import Call
from dynops.ops.geometry import Geometry
from dynops.ops.taps import count, grid_of, pad
from dynops.ops.window import Window

Numbers = list[int]
"""Taps, strides, dilations, how far before the grid the first window begins, and the output's grid; each for rows and
columns."""
OPERATORS = torch.library.Library("dynops", "DEF")


class Engine(Protocol):
    """What computes the three sums on some device; see `local_sum`, `value_gradient` and `kernel_gradient`."""

    def local_sum(self, kernel: Tensor, value: Tensor, numbers: Numbers) -> Tensor: ...

    def value_gradient(self, kernel: Tensor, slope: Tensor, size: list[int], numbers: Numbers) -> Tensor: ...

    def kernel_gradient(self, slope: Tensor, value: Tensor, shared: list[bool], numbers: Numbers) -> Tensor: ...


ENGINES: dict[str, Engine] = {}
"""By name, as the operators' last argument has it."""
ANY_ORDER = {"triton"}
"""Engines that write channels beside each other, where they read them so."""


def refusal(call: Call) -> str:
    """Say why a sum is none of these operators'; nothing where it is."""
    if reason := refuses_window(call.window):
        return reason
    if call.offsets is not None:
        return "the taps have offsets"
    if call.kernel.shape[4:] != (count(call.window, call.size), *call.outputs):
        return "the kernel is constant along taps, rows or columns"
    if call.constant and 1 in (call.kernel.shape[0], call.value.shape[3]):
        return "an output of one pixel is a convolution's"  # of which each weight is used once
    return ""


def refuses_window(window: Geometry) -> str:
    """Say why sums over a window are none of these operators'; nothing where they are."""
    if not isinstance(window, Window) or not window.fixed or window.dims > 2:
        return "the window is no sliding one in one or two dimensions"
    if torch.compiler.is_exporting():
        return "a program that is exported runs elsewhere"
    if torch.autograd.forward_ad._current_level >= 0:
        return "derivatives are taken in forward mode"
    return ""


def run(call: Call, dtype: torch.dtype | None, engine: str) -> Tensor:
    """Take a sum that is not refused, its inputs cast to a dtype."""
    kernel, value = call.kernel, call.value
    if kernel.shape[3] < value.shape[2]:
        value = value.sum(2, keepdim=True)  # what has one weight may be added first
    value, numbers = laid_out(value, call.window)
    flat = call.window.dims == 1
    y = local_sum((kernel.unsqueeze(-2) if flat else kernel).to(dtype), value.to(dtype), numbers, engine)
    return y.squeeze(-2) if flat else y


def scores(query: Tensor, key: Tensor, window: Geometry, dtype: torch.dtype | None, engine: str) -> Tensor:
    """Multiply each query, `b g o d h w`, with the keys in its window, `b g d h w`: `b g o k h w`.

    What a sum over windows has as the gradient of its kernel, with the queries for slopes.
    """
    value, numbers = laid_out(key[:, :, None], window)
    flat = window.dims == 1
    slope = (query.unsqueeze(-2) if flat else query).to(dtype)
    made = kernel_gradient(slope, value.to(dtype), [False, False], numbers, engine).squeeze(3)
    return made.squeeze(-2) if flat else made


def laid_out(value: Tensor, window: Geometry) -> tuple[Tensor, Numbers]:
    """Return features as the operators take them, continued as the border says, and the numbers of their window."""
    assert isinstance(window, Window), "others are refused"
    size = grid_of(value, window)
    before, outputs = [margin for margin, _ in window.margins(size)], window.output_size(size)
    if not window.bounded:
        value, before = pad(value, window), [0] * window.dims
    numbers = [window.sizes, window.strides, window.dilations, before, outputs]
    if window.dims == 1:  # a sequence is an image of one row
        numbers = [(one, *each) for one, each in zip((1, 1, 1, 0, 1), numbers, strict=True)]
        value = value.unsqueeze(-2)
    return value, [number for each in numbers for number in each]


def in_one_dtype(*tensors: Tensor) -> list[Tensor]:
    """Cast to the most exact dtype among them, float32 at least."""
    dtype = torch.float64 if any(each.dtype == torch.float64 for each in tensors) else torch.float32
    return [each.to(dtype) for each in tensors]


def local_sum(kernel: Tensor, value: Tensor, numbers: Numbers, engine: str) -> Tensor:
    """Sum kernel[b,g,o,i,k,p] * value[b,g,i,s,at(p,k)] over i and k.

    Args:
        kernel: `b g o i k h w` on the output's grid; b and g may be 1, and are shared.
        value: `b g i s h w`, continued by zeros.
        numbers: see `Numbers`.
        engine: one of `ENGINES`.
    """
    take = torch.ops.dynops.local_sum.default if is_plain(kernel, value) else LocalSum.apply
    return take(kernel, value, numbers, engine)


def value_gradient(kernel: Tensor, slope: Tensor, size: list[int], numbers: Numbers, engine: str) -> Tensor:
    """Return the gradient of the value, `b g i s h w` of that size, from that of the sum, `b g o s h w`."""
    take = torch.ops.dynops.value_gradient.default if is_plain(kernel, slope) else ValueGradient.apply
    return take(kernel, slope, size, numbers, engine)


def kernel_gradient(slope: Tensor, value: Tensor, shared: list[bool], numbers: Numbers, engine: str) -> Tensor:
    """Return the gradient of the kernel, `b g o i k h w`, summed over b and over g where they share it."""
    take = torch.ops.dynops.kernel_gradient.default if is_plain(slope, value) else KernelGradient.apply
    return take(slope, value, shared, numbers, engine)


def empty_as(like: Tensor, channels: int, grid: list[int], engine: str = "") -> Tensor:
    """Memory for features `b g c s h w` that lie in the order of others: all axes or, rows one by one, the channels."""
    sizes = [*like.shape[:2], channels, like.shape[3], *grid]
    order = [0, *sorted((1, 2, 3, 4, 5) if engine in ANY_ORDER else (1, 2, 3), key=like.stride, reverse=True)]
    order += [axis for axis in (4, 5) if axis not in order]
    if order == [0, 1, 2, 3, 4, 5]:
        return like.new_empty(sizes)
    made = like.new_empty([sizes[axis] for axis in order])
    return made.permute([order.index(axis) for axis in range(6)])


def empty_kernel(slope: Tensor, value: Tensor, shared: list[bool], numbers: Numbers) -> Tensor:
    """Memory for a kernel's gradient, in the dtype that is summed in."""
    b, g = (1 if one else size for one, size in zip(shared, slope.shape, strict=False))
    sizes = [b, g, slope.shape[2], value.shape[2], numbers[0] * numbers[1], *numbers[8:]]
    return slope.new_empty(sizes, dtype=torch.promote_types(slope.dtype, torch.float32))


def is_plain(*tensors: Tensor) -> bool:
    """Whether an operator takes its inputs as they are: nothing is differentiated, mapped over or compiled."""
    if torch.is_grad_enabled() and any(each.requires_grad for each in tensors):
        return False
    return not (torch.compiler.is_compiling() or is_transformed())


def is_transformed() -> bool:
    """Whether a transform of `torch.func` is at work, outside of a compilation."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def _shared(kernel: Tensor, value: Tensor) -> list[bool]:
    """Whether the images share a kernel, and whether the groups do."""
    return [kernel.shape[axis] < value.shape[axis] for axis in (0, 1)]


class LocalSum(torch.autograd.Function):
    """`local_sum` with its derivatives, for autograd and `torch.func` alike."""

    @staticmethod
    def forward(kernel: Tensor, value: Tensor, numbers: Numbers, engine: str) -> Tensor:
        return torch.ops.dynops.local_sum(kernel, value, numbers, engine)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.numbers, ctx.engine = inputs[2:]

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        kernel, value = ctx.saved_tensors
        own = seen = None
        if ctx.needs_input_grad[0]:
            own = kernel_gradient(slope, value, _shared(kernel, value), ctx.numbers, ctx.engine)
        if ctx.needs_input_grad[1]:
            seen = value_gradient(kernel, slope, list(value.shape[4:]), ctx.numbers, ctx.engine)
        return own, seen, None, None

    @staticmethod
    def vmap(info: Any, axes: Any, kernel: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, int]:
        kernel, value = _fold_both(info.batch_size, axes, kernel, value)
        return local_sum(kernel, value, *rest).unflatten(0, (info.batch_size, -1)), 0


class ValueGradient(torch.autograd.Function):
    """`value_gradient` with its derivatives."""

    @staticmethod
    def forward(kernel: Tensor, slope: Tensor, size: list[int], numbers: Numbers, engine: str) -> Tensor:
        return torch.ops.dynops.value_gradient(kernel, slope, size, numbers, engine)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.numbers, ctx.engine = inputs[3:]

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        kernel, slope = ctx.saved_tensors
        own = seen = None
        if ctx.needs_input_grad[0]:
            own = kernel_gradient(slope, above, _shared(kernel, slope), ctx.numbers, ctx.engine)
        if ctx.needs_input_grad[1]:
            seen = local_sum(kernel, above, ctx.numbers, ctx.engine)
        return own, seen, None, None, None

    @staticmethod
    def vmap(info: Any, axes: Any, kernel: Tensor, slope: Tensor, *rest: Any) -> tuple[Tensor, int]:
        kernel, slope = _fold_both(info.batch_size, axes, kernel, slope)
        return value_gradient(kernel, slope, *rest).unflatten(0, (info.batch_size, -1)), 0


class KernelGradient(torch.autograd.Function):
    """`kernel_gradient` with its derivatives."""

    @staticmethod
    def forward(slope: Tensor, value: Tensor, shared: list[bool], numbers: Numbers, engine: str) -> Tensor:
        return torch.ops.dynops.kernel_gradient(slope, value, shared, numbers, engine)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.numbers, ctx.engine = inputs[3:]

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        slope, value = ctx.saved_tensors
        own = seen = None
        if ctx.needs_input_grad[0]:
            own = local_sum(above, value, ctx.numbers, ctx.engine)
        if ctx.needs_input_grad[1]:
            seen = value_gradient(above, slope, list(value.shape[4:]), ctx.numbers, ctx.engine)
        return own, seen, None, None, None

    @staticmethod
    def vmap(info: Any, axes: Any, slope: Tensor, value: Tensor, shared: list[bool], *rest: Any) -> tuple[Tensor, int]:
        slope, value = (_folded(x, axis, info.batch_size) for x, axis in zip((slope, value), axes, strict=False))
        made = kernel_gradient(slope, value, [False, shared[1]], *rest).unflatten(0, (info.batch_size, -1))
        return made.sum(1, keepdim=True) if shared[0] else made, 0


def _folded(x: Tensor, axis: int | None, number: int) -> Tensor:
    """Put an axis that is mapped over in front of the images: as many images for each."""
    x = x.expand(number, *x.shape) if axis is None else x.movedim(axis, 0)
    return x.flatten(0, 1)


def _fold_both(number: int, axes: tuple[Any, ...], kernel: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """Fold an axis that is mapped over into the images; a kernel that all share stays one."""
    features = _folded(features, axes[1], number)
    if axes[0] is None and kernel.shape[0] == 1:
        return kernel, features
    kernel = kernel.expand(number, *kernel.shape) if axes[0] is None else kernel.movedim(axes[0], 0)
    return kernel.expand(-1, features.shape[0] // number, *(-1,) * 6).flatten(0, 1), features


def at_place(inputs: tuple[Any, ...], axes: Any, place: int) -> list[Any]:
    """Return the inputs at one place of the axis that is mapped over."""
    return [
        each.select(axis, place) if isinstance(each, Tensor) and axis is not None else each
        for each, axis in zip(inputs, axes, strict=True)
    ]


def register(schema: str, compute: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Define an operator that any device's engine computes."""
    name = f"dynops::{schema.partition('(')[0]}"
    OPERATORS.define(schema, tags=torch.Tag.pt2_compliant_tag)
    torch.library.impl(name, ("cpu", "cuda"), compute, lib=OPERATORS)
    torch.library.register_fake(name, fake, lib=OPERATORS)


register(
    "local_sum(Tensor kernel, Tensor value, SymInt[] numbers, str engine) -> Tensor",
    lambda kernel, value, numbers, engine: ENGINES[engine].local_sum(kernel, value, numbers),
    lambda kernel, value, numbers, engine: empty_as(value, kernel.shape[2], numbers[8:], engine),
)
register(
    "value_gradient(Tensor kernel, Tensor slope, SymInt[] size, SymInt[] numbers, str engine) -> Tensor",
    lambda kernel, slope, size, numbers, engine: ENGINES[engine].value_gradient(kernel, slope, size, numbers),
    lambda kernel, slope, size, numbers, engine: empty_as(slope, kernel.shape[3], size, engine),
)
register(
    "kernel_gradient(Tensor slope, Tensor value, bool[] shared, SymInt[] numbers, str engine) -> Tensor",
    lambda slope, value, shared, numbers, engine: ENGINES[engine].kernel_gradient(slope, value, shared, numbers),
    lambda slope, value, shared, numbers, engine: empty_kernel(slope, value, shared, numbers).to(value.dtype),
)
