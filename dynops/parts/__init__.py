"""The three parts of a local operator, the operator, and the published ones."""

from dynops.parts import zoo
from dynops.parts.channels import Channels
from dynops.parts.cost import macs, parameters
from dynops.parts.dynamic import BatchNorm, Dynamic
from dynops.parts.gaussian import Gaussian
from dynops.parts.kernel import Kernel, Static
from dynops.parts.mixture import Mixture
from dynops.parts.normalise import (
    FilterNorm,
    MeanZero,
    Normaliser,
    Sigmoid,
    Softmax,
    filter_norm,
    mean_zero,
    sigmoid,
    softmax,
)
from dynops.parts.operator import Description, LocalOperator, Operator, Project
from dynops.parts.query import Positions, Query, QueryKey, QueryPosition

__all__ = [
    "BatchNorm",
    "Channels",
    "Description",
    "Dynamic",
    "FilterNorm",
    "Gaussian",
    "Kernel",
    "LocalOperator",
    "MeanZero",
    "Mixture",
    "Normaliser",
    "Operator",
    "Positions",
    "Project",
    "Query",
    "QueryKey",
    "QueryPosition",
    "Sigmoid",
    "Softmax",
    "Static",
    "filter_norm",
    "macs",
    "mean_zero",
    "parameters",
    "sigmoid",
    "softmax",
    "zoo",
]
