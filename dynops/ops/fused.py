"""Whether the weights of a sum are made where they are needed, and are never in memory."""

from torch import Tensor

from dynops.errors import SpecError
from dynops.ops import on_cuda, sums
from dynops.ops.backends import asked_for
from dynops.ops.geometry import Geometry


def is_fused(value: Tensor, window: Geometry, backend: str | None = None) -> bool:
    """Say whether `generated_sum` and `attended_sum` make weights where they need them; errors as theirs."""
    name, reason = asked_for(backend), refusal(value, window)
    if name == "triton" and reason:
        raise SpecError(f"backend has {name!r}: it takes no such sum, as {reason}. Leave the choice to dynops.")
    return name == "triton" or (name is None and value.is_cuda and not reason)


def refusal(value: Tensor, window: Geometry) -> str:
    """Say why weights are not made where they are needed; nothing where they are."""
    if reason := on_cuda.unavailable(value) or sums.refuses_window(window):
        return reason
    return "" if value.dtype in on_cuda.DTYPES else f"the value has dtype {value.dtype}"
