"""Published weights: the checkpoints of other implementations, under our names."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dynops.axes import bind
from dynops.errors import DataError, ShapeError, SpecError

# of each entry of a published involution, our name and its axes; their kernels lie as ours, `(g k)`
REQUIRED = {
    "conv1.conv.weight": ("kernel.reduce.weight", "hidden c h w"),
    "conv1.bn.weight": ("kernel.norm.weight", "hidden"),
    "conv1.bn.bias": ("kernel.norm.bias", "hidden"),
    "conv1.bn.running_mean": ("kernel.norm.running_mean", "hidden"),
    "conv1.bn.running_var": ("kernel.norm.running_var", "hidden"),
    "conv2.conv.weight": ("kernel.span.weight", "outputs hidden h w"),
    "conv2.conv.bias": ("kernel.span.bias", "outputs"),
}
OPTIONAL = {
    "conv1.conv.bias": ("kernel.reduce.bias", "hidden"),
    "conv1.bn.num_batches_tracked": ("kernel.norm.num_batches_tracked", ""),
}
ENTRY = re.compile(r"((?:.*\.)?)(conv[12]\.(?:conv|bn)\.\w+)")


def convert_involution(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Rename every involution of the authors' code in a state dict to the names of `zoo.involution`.

    A layer X is an involution where `X.conv1.bn` and `X.conv2.conv` have entries, `X.conv2.bn` has none, and the
    convolutions are 1x1. All else keeps its name, and every tensor its values.

    Args:
        state: a state dict, or a checkpoint that holds one at `state_dict`; a prefix `module.` of all names is dropped.
    Returns:
        The state dict, of the same tensors in the same order.
    Raises:
        SpecError: state holds something other than tensors, or an involution lacks an entry.
        ShapeError: the entries of an involution do not fit together.
    Source: Li et al., Involution, CVPR 2021; the authors' code, d-li14/involution.
    """
    weights = _weights(state)
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights.items():
        if entry := ENTRY.fullmatch(name):
            layers.setdefault(entry[1], {})[entry[2]] = tensor
    renamed: dict[str, str] = {}
    for prefix, entries in layers.items():
        if _is_involution(entries):
            _check(prefix, entries)
            ours = {name: ours for name, (ours, _) in (REQUIRED | OPTIONAL).items() if name in entries}
            renamed |= {prefix + theirs: prefix + name for theirs, name in ours.items()}
    return {renamed.get(name, name): tensor for name, tensor in weights.items()}


def load_involution(path: Path | str) -> dict[str, Tensor]:
    """Read a checkpoint of the authors' involution, or of a network that holds it, and convert it.

    Only tensors and plain values are read: nothing in the file is run.

    Args:
        path: a file that `torch.save` wrote.
    Returns:
        A state dict as `convert_involution` gives it, on the CPU.
    Raises:
        DataError: the file is missing, cut off, no checkpoint, or holds other objects or what does not convert.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} has no file: must be a checkpoint that torch.save wrote.")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    # a damaged file can end in any error: whichever instruction its bytes happen to spell fails in its own way
    except Exception as error:
        if foreign := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise DataError(
                f"{path} has {foreign[1]}: must hold tensors and plain values only, as nothing else is loaded. "
                "Ask for a file of the state_dict() alone."
            ) from error
        raise DataError(
            f"{path} has {path.stat().st_size} bytes that cannot be read ({type(error).__name__}): must be a whole "
            "checkpoint that torch.save wrote. Fetch it again."
        ) from error
    try:
        return convert_involution(found)
    except (ShapeError, SpecError) as error:
        raise DataError(f"{path} has weights that do not convert: {error}") from error


def _weights(state: object) -> dict[str, Tensor]:
    """Take the state dict out of what may be wrapped around it."""
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping):
        raise SpecError(f"state has type {type(state).__name__}: must map names to tensors.")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise SpecError(
                f"state has {type(tensor).__name__} at {name!r}: must map names to tensors. Give the part that does."
            )
    parallel = "module."
    if all(name.startswith(parallel) for name in state):
        return {name.removeprefix(parallel): tensor for name, tensor in state.items()}
    return dict(state)


def _is_involution(entries: Mapping[str, Tensor]) -> bool:
    modules = {name.rpartition(".")[0] for name in entries}
    kernels = [entries[name] for name in ("conv1.conv.weight", "conv2.conv.weight") if name in entries]
    return (
        {"conv1.bn", "conv2.conv"} <= modules
        and "conv2.bn" not in modules
        and all(kernel.shape[2:] == (1, 1) for kernel in kernels)
    )


def _check(prefix: str, entries: Mapping[str, Tensor]) -> None:
    if missing := REQUIRED.keys() - entries.keys():
        raise SpecError(
            f"{prefix.removesuffix('.') or 'state'} has {', '.join(sorted(entries))}: an involution also needs "
            f"{', '.join(sorted(missing))}. Take a checkpoint that holds the whole layer."
        )
    sizes: dict[str, int] = {}
    for name, (_, axes) in (REQUIRED | OPTIONAL).items():
        if name in entries:
            sizes = bind(f"{prefix}{name}", entries[name], axes, sizes)
