"""Networks with operator slots."""

from dynops.nets.bare import Bare
from dynops.nets.budget import Matched, matched
from dynops.nets.features import Section, Slot, features, sections
from dynops.nets.keras_example import KerasCNN, KerasINN
from dynops.nets.metaformer import MetaFormer, metaformer
from dynops.nets.named import named
from dynops.nets.network import Network, Widths
from dynops.nets.official import Official, load_official
from dynops.nets.residual import ResidualNetwork
from dynops.nets.resnet import ResNet, rednet, resnet
from dynops.nets.timing import Timing

__all__ = [
    "Bare",
    "KerasCNN",
    "KerasINN",
    "Matched",
    "MetaFormer",
    "Network",
    "Official",
    "ResNet",
    "ResidualNetwork",
    "Section",
    "Slot",
    "Timing",
    "Widths",
    "features",
    "load_official",
    "matched",
    "metaformer",
    "named",
    "rednet",
    "resnet",
    "sections",
]
