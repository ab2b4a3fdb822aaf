"""dynops: local operators in orthogonal parts, and ablations one can trust."""

from dynops.ops import Window, local_sum
from dynops.parts import (
    BatchNorm,
    Channels,
    Dynamic,
    Kernel,
    Operator,
    Project,
    Static,
    macs,
    parameters,
    softmax,
    zoo,
)

__all__ = [
    "BatchNorm",
    "Channels",
    "Dynamic",
    "Kernel",
    "Operator",
    "Project",
    "Static",
    "Window",
    "local_sum",
    "macs",
    "parameters",
    "softmax",
    "zoo",
]
__version__ = "0.1.0"
