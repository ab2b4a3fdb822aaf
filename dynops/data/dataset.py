"""Data sets, in memory or in files, and the base of the specs that load them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from dynops.axes import bind
from dynops.data.augment import Augmentation
from dynops.data.crops import ResizedCrop
from dynops.data.image_files import ImageFiles
from dynops.errors import ShapeError
from dynops.specs import Spec


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Inputs and what a network should answer to them."""

    inputs: Tensor | ImageFiles
    """Raw inputs, `n c h w`, or the files that stand for them."""
    targets: Tensor
    """Classes, `n`, int64; or values, `n c h w`, where a regression judges each pixel."""

    def __post_init__(self) -> None:
        bind("inputs", _shaped(self.inputs), "n c h w")
        if self.targets.dim() == 0 or len(self.targets) != len(self.inputs):
            raise ShapeError(
                f"targets has shape {tuple(self.targets.shape)}, inputs has n={len(self.inputs)}: "
                "must have one target for each input."
            )

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, index: Tensor) -> "Examples":
        """Return the examples at an index, `m`, int64, in its order."""
        return Examples(inputs=self.inputs[index], targets=self.targets[index])


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Everything that training and evaluation need to know about the data."""

    name: str
    """Name for records and messages."""
    train: Examples
    """What is learnt from."""
    test: Examples
    """What is evaluated; held-out training data where a spec says `evaluate="validation"`."""
    task: Literal["classification", "regression"]
    """What kind of answer the targets are."""
    outputs: int
    """Outputs that a network must have: classes, or channels of a regression."""
    scale: float
    """Raw value that becomes 1 before mean and std apply."""
    mean: tuple[float, ...]
    """Mean of each channel, after division by `scale`."""
    std: tuple[float, ...]
    """Standard deviation of each channel, after division by `scale`."""
    mask: Tensor | None = None
    """Output pixels that a regression judges, `h w`, bool; None judges all."""
    classes: tuple[str, ...] = ()
    """Names of the classes, in the order of the targets; empty for a regression."""

    def __post_init__(self) -> None:
        sizes = bind("train", _shaped(self.train.inputs[:1]), "n c h w")
        shared = {axis: sizes[axis] for axis in ("c", "h", "w")}
        bind("test", _shaped(self.test.inputs), "n c h w", shared)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != sizes["c"]:
                raise ShapeError(f"{name} has {len(values)} values, inputs have c={sizes['c']}: must be one a channel.")
        if self.mask is not None:
            bind("mask", self.mask, "h w", shared)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an input."""
        channels, height, width = self.train.inputs.shape[1:]
        return channels, height, width

    def normalise(self, inputs: Tensor) -> Tensor:
        """Bring raw inputs to about zero mean and unit variance.

        y[b,c] = (x[b,c] / scale - mean[c]) / std[c].

        Args:
            inputs: raw inputs, `b c h w`, any dtype and device.
        Returns:
            What a network is given, `b c h w`, float32.
        Raises:
            ShapeError: the channels are not those of the data set.
        """
        bind("inputs", inputs, "b c h w", {"c": len(self.mean)})
        mean = torch.tensor(self.mean, device=inputs.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=inputs.device).view(-1, 1, 1)
        return (inputs.to(torch.float32) / self.scale - mean) / std


class Data(Spec, ABC):
    """Base of all data specs: which data, and which part of it; `load` makes the data set."""

    __slots__ = ()

    @property
    def augmentation(self) -> Augmentation | ResizedCrop | None:
        """What training inputs go through; None where the data allow no change."""
        return None

    @abstractmethod
    def load(self, seed: int, *, root: Path | None = None, download: bool = False) -> Dataset:
        """Make the data set.

        Args:
            seed: of the block; splits, subsets and generated data depend on it and on nothing else.
            root: folder that holds the files of all data sets, `data` by default; passed over where none are read.
            download: whether files that are missing may be fetched.
        Raises:
            DataError: files are missing, corrupt, or cannot be fetched.
            SpecError: the spec asks for a part that leaves a class without images.
        """


def _shaped(inputs: Tensor | ImageFiles) -> Tensor:
    """Return a tensor of the same sizes without content, so that no file is read for its axes."""
    return torch.empty(inputs.shape, device="meta")
