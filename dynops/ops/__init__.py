"""Pure functions on tensors: the formula of dynops and its backends."""

from dynops.ops.local_sum import BACKENDS, gather, local_sum
from dynops.ops.window import Window

__all__ = ["BACKENDS", "Window", "gather", "local_sum"]
