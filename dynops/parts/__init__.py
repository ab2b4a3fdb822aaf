"""The three parts of a local operator, the operator, and the published ones."""

from dynops.parts import zoo
from dynops.parts.averaged import averaged
from dynops.parts.channels import Channels
from dynops.parts.checkpoints import convert_involution, load_involution
from dynops.parts.combine import Parallel, Pointwise, Series
from dynops.parts.context import Context
from dynops.parts.cost import macs, parameters
from dynops.parts.dynamic import Dynamic, Hidden, Linear, Read
from dynops.parts.features import ChannelStatistics, GlobalStatistics, Pair, Patch, PooledTaps
from dynops.parts.fold import fold_all
from dynops.parts.gaussian import Gaussian
from dynops.parts.kernel import Kernel, Static
from dynops.parts.layer import Description, Layer
from dynops.parts.mixture import Mixture
from dynops.parts.norm import BatchNorm
from dynops.parts.normalise import (
    FilterNorm,
    MeanZero,
    Normaliser,
    OneHot,
    Sigmoid,
    Softmax,
    filter_norm,
    mean_zero,
    one_hot,
    sigmoid,
    softmax,
)
from dynops.parts.operator import LocalOperator, Offsets, Operator, Project
from dynops.parts.permuted import Permuted
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
    "GlobalStatistics",
    "Hidden",
    "Kernel",
    "Layer",
    "Linear",
    "LocalOperator",
    "MeanZero",
    "Mixture",
    "Normaliser",
    "Offsets",
    "OneHot",
    "Operator",
    "Pair",
    "Parallel",
    "Patch",
    "Permuted",
    "Pointwise",
    "PooledTaps",
    "Positions",
    "Project",
    "Query",
    "QueryKey",
    "QueryPosition",
    "Read",
    "Relative",
    "Series",
    "Sigmoid",
    "Softmax",
    "Static",
    "averaged",
    "convert_involution",
    "filter_norm",
    "fold_all",
    "load_involution",
    "macs",
    "mean_zero",
    "one_hot",
    "parameters",
    "sigmoid",
    "softmax",
    "zoo",
]
