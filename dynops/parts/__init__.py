"""The three parts of a local operator, the operator, and the published ones."""

from dynops.parts import zoo
from dynops.parts.channels import Channels
from dynops.parts.context import ChannelStatistics, Context
from dynops.parts.cost import macs, parameters
from dynops.parts.dynamic import Dynamic, Hidden, Linear, Read
from dynops.parts.gaussian import Gaussian
from dynops.parts.kernel import Kernel, Static
from dynops.parts.mixture import Mixture
from dynops.parts.norm import BatchNorm
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
from dynops.parts.operator import Description, LocalOperator, Offsets, Operator, Project
from dynops.parts.places import Delta, Relative
from dynops.parts.query import Positions, Query, QueryKey, QueryPosition

__all__ = [
    "BatchNorm",
    "ChannelStatistics",
    "Channels",
    "Context",
    "Delta",
    "Description",
    "Dynamic",
    "FilterNorm",
    "Gaussian",
    "Hidden",
    "Kernel",
    "Linear",
    "LocalOperator",
    "MeanZero",
    "Mixture",
    "Normaliser",
    "Offsets",
    "Operator",
    "Positions",
    "Project",
    "Query",
    "QueryKey",
    "QueryPosition",
    "Read",
    "Relative",
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
