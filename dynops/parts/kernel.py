"""Kernels: where the weights of a local operator come from, and the algebra that combines them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import reduce
from math import prod
from operator import add, mul
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dynops.errors import SpecError
from dynops.ops import Geometry, attended_by, local_sum
from dynops.parts.context import check_positions
from dynops.parts.normalise import Normaliser, Softmax
from dynops.parts.scores import Scores, added
from dynops.parts.site import Site
from dynops.specs import Spec, of_kind, spec


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


class Term(NamedTuple):
    """One kernel of a sum, and what its sum over the windows is multiplied with."""

    kernel: Tensor
    """`b g o i k h w`"""
    weight: Tensor | None
    """`b g o 1 1 h w`; None where it is 1."""


class KernelModule(nn.Module, ABC):
    """What a kernel spec builds: `forward(context)` gives the kernel, `b g o i k h w`."""

    has_scores = False
    """Whether `scored` gives the kernel of a window that slides."""

    @abstractmethod
    def forward(self, context: Tensor, given: Tensor | None = None) -> Tensor:
        """Return the kernel on the output's grid; it has size 1 along every axis on which it is constant.

        Args:
            context: what the kernel is made from, `b c h w` on the input's grid.
            given: the operator's own context on the output's grid, where it has one.
        """

    def terms(self, context: Tensor, given: Tensor | None = None) -> "list[Term]":
        """Return the kernel as a sum of terms, so that each can be summed over its windows as it is cheapest."""
        return [Term(self(context, given), None)]

    def scored(self, context: Tensor, given: Tensor | None = None) -> Scores:
        """Return the kernel as products, so that a softmax of it needs no memory for each tap; as `forward`."""
        raise AssertionError(f"{type(self).__name__} has no scores, and `has_scores` says so")

    def sum(
        self, context: Tensor, given: Tensor | None, value: Tensor, window: Geometry, offsets: Tensor | None
    ) -> Tensor:
        """Sum the windows of a value, `b g i s h w`, weighted by the kernel: `b g o s h w`, o of size 1 if constant.

        Args:
            context: what the kernel is made from, as in `forward`.
            given: the operator's own context, likewise.
            value: what is summed.
            window: which pixels are summed.
            offsets: where taps sample instead, as in `local_sum`.
        """
        return sum_terms(self.terms(context, given), value, window, offsets)


@spec
class Static(Kernel):
    """A learned table: the kernel of a convolution, the same for every image and every pixel."""

    shared: str = ""
    """Axes among g o i k along which the table is constant."""
    start: float | None = None
    """What every weight starts as; None draws them as PyTorch draws a convolution's. A gain starts as 1."""
    positions: bool = False
    """Whether each position of the output's grid has a table of its own: a locally connected layer."""
    learned: bool = True
    """Whether the table is learned; a fixed one has its start for ever."""

    def __post_init__(self) -> None:
        check_shared(self.shared)
        if not self.learned and self.start is None:
            raise SpecError("learned has False, start has None: a table that is fixed needs its start.")

    @property
    def signature(self) -> frozenset[str]:
        return frozenset("hw" if self.positions else "")

    def build(self, site: Site) -> KernelModule:
        return StaticKernel(self, site)


class StaticKernel(KernelModule):
    """A table of weights, started as PyTorch starts a convolution."""

    def __init__(self, kernel: Static, site: Site) -> None:
        super().__init__()
        self.window = site.window
        self.start = kernel.start
        self.bound = site.fan_in**-0.5
        axes = site.axes(kernel.shared)
        grid = site.positions() if kernel.positions else ()
        weight = torch.empty(axes["g"], axes["o"], axes["i"], axes["k"], *grid)  # g o i k, h w where positions differ
        if kernel.learned:
            self.weight: Tensor = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)
        self.has_scores = not grid and axes["i"] == 1
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the table uniformly within 1 / sqrt(number of summands), or fill it with its start."""
        if self.start is None:
            nn.init.uniform_(self.weight, -self.bound, self.bound)
        else:
            nn.init.constant_(self.weight, self.start)

    def forward(self, context: Tensor, given: Tensor | None = None) -> Tensor:
        if self.weight.dim() == 4:
            return self.weight[(None, ..., *(None,) * self.window.dims)]
        check_positions(tuple(self.weight.shape[4:]), self.window.output_size(tuple(context.shape[2:])))
        return self.weight[None]

    def scored(self, context: Tensor, given: Tensor | None = None) -> Scores:
        # the positions of o, which fan-out o alone asks
        taps = prod(self.window.tap_grid(tuple(context.shape[2:])))
        asked = torch.eye(self.weight.shape[1], dtype=self.weight.dtype, device=self.weight.device)
        asked = asked[(None, None, ..., *(None,) * self.window.dims)]
        return Scores(None, None, asked, self.weight.squeeze(2).expand(-1, -1, taps))


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
        self.has_scores = combine is add and all(kernel.has_scores for kernel in kernels)

    def forward(self, context: Tensor, given: Tensor | None = None) -> Tensor:
        return reduce(self.combine, (kernel(context, given) for kernel in self.kernels))

    def scored(self, context: Tensor, given: Tensor | None = None) -> Scores:
        return added([each.scored(context, given) for each in self.kernels if isinstance(each, KernelModule)])


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
        if self.normaliser.least_taps > 1 and site.taps < self.normaliser.least_taps:
            raise SpecError(
                f"window has {site.taps} taps, {self.normaliser!r} needs {self.normaliser.least_taps}: "
                "a smaller window gives it nothing to normalise."
            )
        return NormalisedKernel(self.kernel.build(site), self.normaliser, site)


class NormalisedKernel(KernelModule):
    """A kernel, normalised over its taps; where the window's border is `mask`, over those inside."""

    def __init__(self, kernel: KernelModule, normaliser: Normaliser, site: Site) -> None:
        super().__init__()
        self.window, self.slots = site.window, site.slots
        self.masked = site.window.masked and not site.slots
        self.kernel = kernel
        self.normaliser = normaliser
        # that of a softmax of scores; a table alone has one for all pixels
        scored = kernel.has_scores and not site.slots and not isinstance(kernel, StaticKernel)
        self.temperature = normaliser.temperature if scored and isinstance(normaliser, Softmax) else None

    def forward(self, context: Tensor, given: Tensor | None = None) -> Tensor:
        kernel, size = self.kernel(context, given), tuple(context.shape[2:])
        taps = self.slots or prod(self.window.tap_grid(size))
        kernel = kernel.expand(*kernel.shape[:4], taps, *kernel.shape[5:])
        inside = self.window.inside(size, context.device) if self.masked else None
        return self.normaliser(kernel, inside)

    def sum(
        self, context: Tensor, given: Tensor | None, value: Tensor, window: Geometry, offsets: Tensor | None
    ) -> Tensor:
        whole = offsets is None and value.shape[2] == 1
        if whole and self.temperature is not None and attended_by(value, window):
            return self.kernel.scored(context, given).sum(value, window, self.temperature)
        return super().sum(context, given, value, window, offsets)


def _check_combined(name: str, kernels: tuple[Kernel, ...]) -> None:
    for kernel in kernels:
        of_kind(name, kernel, Kernel)
    if len(kernels) < 2:
        raise SpecError(f"{name} has {len(kernels)} kernels: must be two or more.")


def sum_terms(terms: list[Term], value: Tensor, window: Geometry, offsets: Tensor | None) -> Tensor:
    """Sum the windows of a value with each term of a kernel, `b g o s h w`."""
    sums = []
    for kernel, weight in terms:
        y = local_sum(kernel, value, window, offsets=offsets)
        sums.append(y if weight is None else weight.squeeze(3) * y)
    return reduce(add, sums)


def combined(terms: list[Term]) -> Tensor:
    """Add terms to the kernel that they are, `b g o i k h w`."""
    return reduce(add, (kernel if weight is None else weight * kernel for kernel, weight in terms))


def check_shared(shared: str) -> None:
    """Raise a SpecError unless the text holds letters among g o i k, each once."""
    letters = shared.replace(" ", "")
    if set(letters) - set("goik") or len(set(letters)) < len(letters):
        raise SpecError(f"shared has {shared!r}: must hold letters among g o i k, each once.")
