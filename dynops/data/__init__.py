"""Data sets, probes, and the batches that training takes from them."""

from dynops.data.augment import Augmentation, augment
from dynops.data.batches import Batches
from dynops.data.cifar import Cifar10, Cifar100
from dynops.data.crops import ResizedCrop
from dynops.data.dataset import Data, Dataset, Examples
from dynops.data.folders import ImageFolder
from dynops.data.image_files import ImageFiles
from dynops.data.images import Digits, ImageData
from dynops.data.mnist import FashionMnist, Mnist
from dynops.data.probes import SelectorShift

__all__ = [
    "Augmentation",
    "Batches",
    "Cifar10",
    "Cifar100",
    "Data",
    "Dataset",
    "Digits",
    "Examples",
    "FashionMnist",
    "ImageData",
    "ImageFiles",
    "ImageFolder",
    "Mnist",
    "ResizedCrop",
    "SelectorShift",
    "augment",
]
