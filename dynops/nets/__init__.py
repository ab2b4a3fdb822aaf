"""Networks with operator slots."""

from dynops.nets.bare import Bare
from dynops.nets.keras_example import KerasCNN, KerasINN
from dynops.nets.network import Network
from dynops.nets.residual import ResidualNetwork

__all__ = ["Bare", "KerasCNN", "KerasINN", "Network", "ResidualNetwork"]
