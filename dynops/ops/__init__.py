"""Pure functions on tensors: the formula of dynops and its backends."""

from dynops.ops.attended_sum import attended_sum
from dynops.ops.backends import BACKENDS, use_backend
from dynops.ops.blocks import Block, Global
from dynops.ops.fused import attended_by, generated_by
from dynops.ops.generated_sum import generated_sum
from dynops.ops.geometry import Geometry, Size
from dynops.ops.local_sum import explain, local_sum
from dynops.ops.scatter import scatter
from dynops.ops.taps import gather
from dynops.ops.window import Window

__all__ = [
    "BACKENDS",
    "Block",
    "Geometry",
    "Global",
    "Size",
    "Window",
    "attended_by",
    "attended_sum",
    "explain",
    "gather",
    "generated_by",
    "generated_sum",
    "local_sum",
    "scatter",
    "use_backend",
]
