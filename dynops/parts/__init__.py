"""The three parts of a local operator, the operator, and the published ones."""

from dynops.parts import zoo
from dynops.parts.channels import Channels
from dynops.parts.cost import macs, parameters
from dynops.parts.dynamic import BatchNorm, Dynamic
from dynops.parts.kernel import Kernel, Normaliser, Static, softmax
from dynops.parts.operator import Description, LocalOperator, Operator, Project

__all__ = [
    "BatchNorm",
    "Channels",
    "Description",
    "Dynamic",
    "Kernel",
    "LocalOperator",
    "Normaliser",
    "Operator",
    "Project",
    "Static",
    "macs",
    "parameters",
    "softmax",
    "zoo",
]
