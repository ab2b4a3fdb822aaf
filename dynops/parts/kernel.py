"""Kernels: where the weights of a local operator come from, and the algebra that combines them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import add, mul

import torch
from torch import Tensor, nn

from dynops.errors import SpecError
from dynops.ops.geometry import Size
from dynops.ops.window import Window
from dynops.parts.normalise import Normaliser
from dynops.specs import Spec, of_kind, spec


@dataclass(frozen=True, kw_only=True)
class Site:
    """The place that a kernel is built for."""

    channels: int
    """Channels of the tensor that a context reads."""
    g: int
    o: int
    i: int
    window: Window
    size: Size | None
    """The input's grid, where known."""
    experts: int | None = None
    """Number of experts that a router weighs; its weights stand in the place of taps."""

    @property
    def taps(self) -> int:
        """Size of the axis k."""
        return self.experts or self.window.taps

    def check_taps(self, kernel: "Kernel") -> None:
        """Raise a SpecError where a kernel that needs the window's taps would be a router."""
        if self.experts:
            raise SpecError(f"router has {kernel!r}: it weighs taps, not experts. Use a Static or Dynamic kernel.")

    def axes(self, shared: str) -> dict[str, int]:
        """Sizes of the axes `g o i k`, 1 along the shared ones."""
        sizes = {"g": self.g, "o": self.o, "i": self.i, "k": self.taps}
        return {letter: 1 if letter in shared else size for letter, size in sizes.items()}


class Kernel(Spec, ABC):
    """Base of all kernels: `+` and `*` combine them axis by axis, `then` normalises them."""

    __slots__ = ()

    @property
    @abstractmethod
    def signature(self) -> frozenset[str]:
        """The axes among b, h, w on which the kernel varies."""

    @abstractmethod
    def build(self, site: Site) -> "KernelModule":
        """Make the module that gives the kernel at a place."""

    def __add__(self, other: "Kernel") -> "Kernel":
        return Sum(terms=(self, other)) if isinstance(other, Kernel) else NotImplemented

    def __mul__(self, other: "Kernel") -> "Kernel":
        return Product(factors=(self, other)) if isinstance(other, Kernel) else NotImplemented

    def then(self, normaliser: "Normaliser") -> "Kernel":
        """Return this kernel, normalised over the taps of each window."""
        return Normalised(kernel=self, normaliser=normaliser)


class KernelModule(nn.Module, ABC):
    """What a kernel spec builds: `forward(context)` gives the kernel, `b g o i k h w`."""

    @abstractmethod
    def forward(self, context: Tensor) -> Tensor:
        """Return the kernel on the output's grid; it has size 1 along every axis on which it is constant.

        Args:
            context: what the kernel is made from, `b c h w` on the input's grid.
        """


@spec
class Static(Kernel):
    """A learned table: the kernel of a convolution, the same for every image and every pixel."""

    shared: str = ""
    """Axes among g o i k along which the table is constant."""
    start: float | None = None
    """What every weight starts as; None draws them as PyTorch draws a convolution's. A gain starts as 1."""

    def __post_init__(self) -> None:
        check_shared(self.shared)

    @property
    def signature(self) -> frozenset[str]:
        return frozenset()

    def build(self, site: Site) -> KernelModule:
        return StaticKernel(self, site)


class StaticKernel(KernelModule):
    """A table of weights, started as PyTorch starts a convolution."""

    def __init__(self, kernel: Static, site: Site) -> None:
        super().__init__()
        self.dims = site.window.dims
        self.start = kernel.start
        self.bound = (site.i * site.taps) ** -0.5
        axes = site.axes(kernel.shared)
        self.weight = nn.Parameter(torch.empty(axes["g"], axes["o"], axes["i"], axes["k"]))  # g o i k
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the table uniformly within 1 / sqrt(number of summands), or fill it with its start."""
        if self.start is None:
            nn.init.uniform_(self.weight, -self.bound, self.bound)
        else:
            nn.init.constant_(self.weight, self.start)

    def forward(self, context: Tensor) -> Tensor:
        return self.weight[(None, ..., *(None,) * self.dims)]


@spec
class Sum(Kernel):
    """The sum of kernels, each constant along the axes that it lacks."""

    terms: tuple[Kernel, ...]
    """What is added."""

    def __post_init__(self) -> None:
        flat = tuple(each for term in self.terms for each in (term.terms if isinstance(term, Sum) else (term,)))
        object.__setattr__(self, "terms", flat)
        _check_combined("terms", flat)

    def __repr__(self) -> str:
        return " + ".join(repr(term) for term in self.terms)

    @property
    def signature(self) -> frozenset[str]:
        return frozenset().union(*(term.signature for term in self.terms))

    def build(self, site: Site) -> KernelModule:
        return Combination(add, [term.build(site) for term in self.terms])


@spec
class Product(Kernel):
    """The product of kernels, each constant along the axes that it lacks."""

    factors: tuple[Kernel, ...]
    """What is multiplied."""

    def __post_init__(self) -> None:
        flat = tuple(each for one in self.factors for each in (one.factors if isinstance(one, Product) else (one,)))
        object.__setattr__(self, "factors", flat)
        _check_combined("factors", flat)

    def __repr__(self) -> str:
        return " * ".join(f"({each!r})" if isinstance(each, Sum) else repr(each) for each in self.factors)

    @property
    def signature(self) -> frozenset[str]:
        return frozenset().union(*(factor.signature for factor in self.factors))

    def build(self, site: Site) -> KernelModule:
        return Combination(mul, [factor.build(site) for factor in self.factors])


class Combination(KernelModule):
    """Kernels, combined by plain broadcasting."""

    def __init__(self, combine: Callable[[Tensor, Tensor], Tensor], kernels: list[KernelModule]) -> None:
        super().__init__()
        self.combine = combine
        self.kernels = nn.ModuleList(kernels)

    def forward(self, context: Tensor) -> Tensor:
        return reduce(self.combine, (kernel(context) for kernel in self.kernels))


@spec
class Normalised(Kernel):
    """A kernel, normalised over the taps of each window."""

    kernel: Kernel
    """What is normalised."""
    normaliser: Normaliser
    """How."""

    def __post_init__(self) -> None:
        of_kind("kernel", self.kernel, Kernel)
        of_kind("normaliser", self.normaliser, Normaliser)

    def __repr__(self) -> str:
        inner = f"({self.kernel!r})" if isinstance(self.kernel, Sum | Product) else repr(self.kernel)
        return f"{inner}.then({self.normaliser!r})"

    @property
    def signature(self) -> frozenset[str]:
        return self.kernel.signature

    def build(self, site: Site) -> KernelModule:
        if site.taps < self.normaliser.least_taps:
            raise SpecError(
                f"window has {site.taps} taps, {self.normaliser!r} needs {self.normaliser.least_taps}: "
                "a smaller window gives it nothing to normalise."
            )
        return NormalisedKernel(self.kernel.build(site), self.normaliser, site)


class NormalisedKernel(KernelModule):
    """A kernel, normalised over its taps; where the window's border is `mask`, over those inside."""

    def __init__(self, kernel: KernelModule, normaliser: Normaliser, site: Site) -> None:
        super().__init__()
        self.window, self.taps = site.window, site.taps
        self.masked = site.window.border == "mask" and not site.experts
        self.kernel = kernel
        self.normaliser = normaliser

    def forward(self, context: Tensor) -> Tensor:
        kernel = self.kernel(context)
        kernel = kernel.expand(*kernel.shape[:4], self.taps, *kernel.shape[5:])
        inside = self.window.inside(tuple(context.shape[2:]), context.device) if self.masked else None
        return self.normaliser(kernel, inside)


def _check_combined(name: str, kernels: tuple[Kernel, ...]) -> None:
    for kernel in kernels:
        of_kind(name, kernel, Kernel)
    if len(kernels) < 2:
        raise SpecError(f"{name} has {len(kernels)} kernels: must be two or more.")


def check_shared(shared: str) -> None:
    """Raise a SpecError unless the text holds letters among g o i k, each once."""
    letters = shared.replace(" ", "")
    if set(letters) - set("goik") or len(set(letters)) < len(letters):
        raise SpecError(f"shared has {shared!r}: must hold letters among g o i k, each once.")
