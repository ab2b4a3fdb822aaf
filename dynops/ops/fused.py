"""Which engine makes the weights of a sum where they are needed, so that they are never in memory."""

from torch import Tensor

from dynops.errors import SpecError
from dynops.ops import attended_native, attended_on_cuda, generated_on_cuda, native, on_cuda, sums
from dynops.ops.backends import asked_for
from dynops.ops.geometry import Geometry


def generated_by(value: Tensor, window: Geometry, backend: str | None = None) -> str | None:
    """Name the engine with which `generated_sum` generates kernels where it needs them; None: they are in memory.

    Raises:
        SpecError: there is no such backend, or `triton` is asked for and takes no such sum.
    """
    return generated_on_cuda.NAME if _is_triton(value, window, backend) else None


def attended_by(value: Tensor, window: Geometry, backend: str | None = None) -> str | None:
    """Name the engine with which `attended_sum` makes weights where it needs them; None: they are in memory.

    Raises:
        SpecError: as in `generated_by`.
    """
    if _is_triton(value, window, backend):
        return attended_on_cuda.NAME
    free = asked_for(backend) in (None, attended_native.NAME)
    return attended_native.NAME if free and not native.refuses_attention(value, window) else None


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
