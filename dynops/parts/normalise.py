"""Normalisers: maps over the taps of a kernel."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from dynops.errors import SpecError
from dynops.specs import Spec, spec


class Normaliser(Spec, ABC):
    """Base of all maps over the taps of a kernel; `least_taps` is the number that it needs."""

    __slots__ = ()
    least_taps = 1

    @abstractmethod
    def __call__(self, kernel: Tensor, inside: Tensor | None = None) -> Tensor:
        """Normalise a kernel over k.

        Args:
            kernel: weights, `b g o i k h w`.
            inside: which taps count, `k h w`; the others get no weight. None: all count.
        """


@spec
class Softmax(Normaliser):
    """Positive weights that add up to 1 over the taps: `exp(K / temperature)`, divided by its sum."""

    temperature: float = 1.0
    """What the kernel is divided by: the higher, the flatter."""

    def __post_init__(self) -> None:
        _check_positive("temperature", self.temperature)

    def __repr__(self) -> str:
        return "softmax" if self.temperature == 1 else f"Softmax(temperature={self.temperature!r})"

    def __call__(self, kernel: Tensor, inside: Tensor | None = None) -> Tensor:
        logits = kernel / self.temperature if self.temperature != 1 else kernel
        if inside is not None:
            logits = logits.masked_fill(~inside, float("-inf"))
        return torch.softmax(logits, dim=4)


@spec
class Sigmoid(Normaliser):
    """Each weight between 0 and 1, whatever the others are: `1 / (1 + exp(-K / temperature))`."""

    temperature: float = 1.0
    """What the kernel is divided by: the higher, the nearer to one half."""

    def __post_init__(self) -> None:
        _check_positive("temperature", self.temperature)

    def __repr__(self) -> str:
        return "sigmoid" if self.temperature == 1 else f"Sigmoid(temperature={self.temperature!r})"

    def __call__(self, kernel: Tensor, inside: Tensor | None = None) -> Tensor:
        return _kept(torch.sigmoid(kernel / self.temperature), inside)


@spec
class FilterNorm(Normaliser):
    """Weights of mean 0 and standard deviation 1 over the taps: `(K - mean) / (std + eps)`, std with k - 1.

    A gain for each tap is learned by `* Static(start=1.0)` behind it.
    Source: Zhou et al., Decoupled Dynamic Filter Networks, CVPR 2021, eq. 4 and 5.
    """

    eps: float = 1e-10
    """Added to the standard deviation."""
    least_taps = 2

    def __repr__(self) -> str:
        return "filter_norm" if self.eps == 1e-10 else f"FilterNorm(eps={self.eps!r})"

    def __call__(self, kernel: Tensor, inside: Tensor | None = None) -> Tensor:
        centred = _centred(kernel, inside)
        count = kernel.shape[4] if inside is None else inside.sum(0).clamp(min=2)
        variance = centred.square().sum(4, keepdim=True) / (count - 1)
        # the root has no slope at 0; there the kernel is 0 as well
        varies = variance > 0
        deviation = torch.where(varies, variance, 1).sqrt() * varies
        return centred / (deviation + self.eps)


@spec
class MeanZero(Normaliser):
    """Weights that add up to 0 over the taps, so that a constant region gives 0: `K - mean`."""

    least_taps = 2

    def __repr__(self) -> str:
        return "mean_zero"

    def __call__(self, kernel: Tensor, inside: Tensor | None = None) -> Tensor:
        return _centred(kernel, inside)


@spec
class OneHot(Normaliser):
    """Weight 1 for the greatest and 0 for all others; gradients pass as through a softmax.

    Source: Chen et al., Dynamic Region-Aware Convolution, CVPR 2021, eq. 4 and 5.
    """

    def __repr__(self) -> str:
        return "one_hot"

    def __call__(self, kernel: Tensor, inside: Tensor | None = None) -> Tensor:
        shares = softmax(kernel, inside)
        chosen = torch.zeros_like(shares).scatter(4, shares.argmax(4, keepdim=True), 1.0)
        return chosen + (shares - shares.detach())


def _centred(kernel: Tensor, inside: Tensor | None) -> Tensor:
    if inside is None:
        return kernel - kernel.mean(4, keepdim=True)
    mean = _kept(kernel, inside).sum(4, keepdim=True) / inside.sum(0)
    return _kept(kernel - mean, inside)


def _kept(kernel: Tensor, inside: Tensor | None) -> Tensor:
    return kernel if inside is None else kernel.masked_fill(~inside, 0)


def _check_positive(name: str, value: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise SpecError(f"{name} has {value!r}: must be a number greater than 0.")


softmax = Softmax()
sigmoid = Sigmoid()
filter_norm = FilterNorm()
mean_zero = MeanZero()
one_hot = OneHot()
