"""dynops: local operators in orthogonal parts, and ablations one can trust."""

from dynops.ops import Window, local_sum
from dynops.parts import (
    BatchNorm,
    Channels,
    Dynamic,
    FilterNorm,
    Kernel,
    Operator,
    Project,
    Sigmoid,
    Softmax,
    Static,
    filter_norm,
    macs,
    mean_zero,
    parameters,
    sigmoid,
    softmax,
    zoo,
)

__all__ = [
    "BatchNorm",
    "Channels",
    "Dynamic",
    "FilterNorm",
    "Kernel",
    "Operator",
    "Project",
    "Sigmoid",
    "Softmax",
    "Static",
    "Window",
    "filter_norm",
    "local_sum",
    "macs",
    "mean_zero",
    "parameters",
    "sigmoid",
    "softmax",
    "zoo",
]
__version__ = "0.1.0"
