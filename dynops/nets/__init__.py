"""Networks with operator slots."""

from dynops.nets.bare import Bare
from dynops.nets.budget import Matched, matched
from dynops.nets.keras_example import KerasCNN, KerasINN
from dynops.nets.network import Network, Widths
from dynops.nets.residual import ResidualNetwork
from dynops.nets.resnet import ResNet, rednet, resnet
from dynops.nets.timing import Timing

__all__ = [
    "Bare",
    "KerasCNN",
    "KerasINN",
    "Matched",
    "Network",
    "ResNet",
    "ResidualNetwork",
    "Timing",
    "Widths",
    "matched",
    "rednet",
    "resnet",
]
