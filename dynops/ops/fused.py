"""Which engine makes the weights of a sum where they are needed, so that they are never in memory."""

from math import prod

from torch import Tensor

from dynops.errors import SpecError
from dynops.ops import attended, attended_on_cuda, fused_native, generated, generated_on_cuda, native, on_cuda, sums
from dynops.ops.backends import asked_for
from dynops.ops.geometry import Geometry
from dynops.ops.taps import count, grid_of

FEW = 32
"""Channels of a hidden context from which weights are made as fast as memory gives them, measured on two cores."""
LARGE = 16 << 20
"""Bytes of a kernel that no cache holds."""

attended.ENGINES |= {
    attended_on_cuda.NAME: attended_on_cuda.AttendedTriton(),
    fused_native.NAME: fused_native.AttendedNative(),
}
generated.ENGINES |= {
    generated_on_cuda.NAME: generated_on_cuda.GeneratedTriton(),
    fused_native.NAME: fused_native.GeneratedNative(),
}


def attended_by(value: Tensor, window: Geometry, backend: str | None = None) -> str | None:
    """Name the engine with which `attended_sum` makes weights where it needs them.

    Returns:
        `triton`, `native`, or None: they are in memory.
    Raises:
        SpecError: there is no such backend, or `triton` is asked for and takes no such sum.
    """
    if _is_triton(value, window, backend):
        return attended_on_cuda.NAME
    free = asked_for(backend) in (None, fused_native.NAME)
    return fused_native.NAME if free and not native.refuses_fused(value, window) else None


def generated_by(hidden: Tensor, value: Tensor, window: Geometry, backend: str | None = None) -> str | None:
    """Name the engine with which `generated_sum` makes kernels where it needs them; returns and errors as above.

    On a CPU that takes less time, forward and backward, where the kernel is larger than the caches and few channels
    make each of its weights, which are made three times; elsewhere it has to be asked for, and saves memory.
    """
    engine = attended_by(value, window, backend)
    if engine != fused_native.NAME or asked_for(backend):
        return engine
    weights = value.shape[0] * value.shape[1] * count(window, grid_of(value, window)) * prod(hidden.shape[2:])
    pays = hidden.shape[1] <= FEW and weights * value.element_size() >= LARGE
    return engine if pays else None


def _is_triton(value: Tensor, window: Geometry, backend: str | None) -> bool:
    name, reason = asked_for(backend), _refusal(value, window)
    if name == "triton" and reason:
        raise SpecError(f"backend has {name!r}: it takes no such sum, as {reason}. Leave the choice to dynops.")
    return name == "triton" or (name is None and value.is_cuda and not reason)


def _refusal(value: Tensor, window: Geometry) -> str:
    """Say why Triton does not make weights where they are needed; nothing where it does."""
    if reason := on_cuda.unavailable(value) or sums.refuses_window(window):
        return reason
    return "" if value.dtype in on_cuda.DTYPES else f"the value has dtype {value.dtype}"
