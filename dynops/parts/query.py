"""Kernels of attention: each pixel's query, against the keys in its window or against learned positions."""

from dataclasses import replace
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynops.errors import ShapeError, SpecError
from dynops.ops.geometry import Size
from dynops.ops.local_scores import RELATIONS, local_products, local_scores
from dynops.parts import context as contexts
from dynops.parts.context import Pixel
from dynops.parts.cost import Counted
from dynops.parts.grid import CONVOLUTIONS
from dynops.parts.kernel import Kernel, KernelModule
from dynops.parts.norm import BatchNorm
from dynops.parts.scores import Scores
from dynops.parts.site import Site
from dynops.specs import Spec, at_least, of_kind, one_of, spec

LAYOUTS = ("table", "halves", "sum")


@spec
class Query(Spec):
    """What a pixel asks: `relu(norm(W x[p]))`, a linear map where norm and relu are left out."""

    dim: int | None = None
    """Channels of a query; by default the context's, divided by the kernels g and their fan-out o."""
    shared: str = ""
    """Axes among g o along which one query serves all."""
    bias: bool = False
    """Whether the map has a bias; that of a key then has one, too."""
    norm: BatchNorm | None = None
    """Normalisation of the query."""
    relu: bool = False
    """Whether negative queries become 0."""
    downsample: str = "subsample"
    """How the query reaches the grid of a strided output: `average` pooling, or `subsample`."""
    context: str = "pixel"
    """`pixel`, or `operator`: the operator's own context already is the query, and nothing is learned here."""

    def __post_init__(self) -> None:
        one_of("context", self.context, ("pixel", "operator"))
        if self.context == "operator" and replace(self, context="pixel", shared="") != Query():
            raise SpecError(
                f"context has 'operator': the context is the query as it is. Give {self!r} no dim, bias, "
                "norm, relu or downsample."
            )
        if self.dim is not None:
            at_least("dim", self.dim, 1)
        letters = self.shared.replace(" ", "")
        if set(letters) - set("go") or len(set(letters)) < len(letters):
            raise SpecError(f"shared has {self.shared!r}: must hold letters among g o, each once.")
        if self.norm is not None:
            of_kind("norm", self.norm, BatchNorm)
        one_of("downsample", self.downsample, ("average", "subsample"))

    def width(self, site: Site) -> int:
        """Channels of a query at a place.

        Raises:
            ShapeError: the context does not divide by g and o.
        """
        if self.dim is not None:
            return self.dim
        if self.context == "operator":
            queries = prod(1 if letter in self.shared else getattr(site, letter) for letter in "go")
            given = contexts.width("operator", site)
            if given % queries:
                raise ShapeError(f"context has c={given} channels, kernel has {queries} queries: c must be a multiple.")
            return given // queries
        if site.channels % (site.g * site.o):
            raise ShapeError(
                f"context has c={site.channels} channels, channels have g={site.g}, o={site.o}: c must be a "
                "multiple of g * o. Give the query a dim."
            )
        return site.channels // (site.g * site.o)


@spec
class Positions(Spec):
    """A learned vector for each tap of a window."""

    layout: str = "table"
    """`table`: one vector a tap; `halves`: the first channels from the tap's row, the last from its column, as in
    stand-alone self-attention (Ramachandran et al., NeurIPS 2019); `sum`: a row's vector plus a column's."""
    shared: bool = False
    """Whether all kernels g have the same vectors."""
    reach: int | None = None
    """Side of the part of a global or block window that has vectors, odd; beyond it they are zero. None: all of it."""

    def __post_init__(self) -> None:
        one_of("layout", self.layout, LAYOUTS)
        if self.reach is not None and (not isinstance(self.reach, int) or self.reach < 1 or self.reach % 2 == 0):
            raise SpecError(f"reach has {self.reach!r}: must be an odd number, the side of a window.")


@spec
class QueryKey(Kernel):
    """A kernel that compares: `K[b,g,o,k,p] = relation(q[b,g,o,p], scale k[b,g,window(p,k)] + r[g,k])`.

    Source: Ramachandran et al., Stand-Alone Self-Attention, NeurIPS 2019, eq. 3; for the relations, Hu et al., Local
    Relation Networks, ICCV 2019, table 4.
    """

    relation: str = "dot"
    """`dot`, `subtraction` (minus the L1 distance) or `squared_distance` (minus its square)."""
    query: Query = Query()
    """The query; the key is a linear map of the same width, one for all fan-outs o."""
    positions: Positions | None = None
    """What is added to the key of each tap."""
    scaled: bool = True
    """Whether the keys of a dot product are divided by the root of their width."""
    distribution: bool = False
    """Whether each channel of the keys is normalised by a softmax over all pixels, as a content lambda's are."""

    def __post_init__(self) -> None:
        one_of("relation", self.relation, tuple(RELATIONS))
        if self.relation != "dot" and not self.scaled:
            raise SpecError(f"scaled has False, relation has {self.relation!r}: only a dot product is scaled.")
        of_kind("query", self.query, Query)
        if self.positions is not None:
            of_kind("positions", self.positions, Positions)

    @property
    def signature(self) -> frozenset[str]:
        return frozenset("bhw")

    def build(self, site: Site) -> KernelModule:
        site.check_taps(self)
        return QueryKeyKernel(self, site)


@spec
class QueryPosition(Kernel):
    """A kernel that knows where its taps are: `K[b,g,o,k,p] = q[b,g,o,p] . r[g,k]`.

    Involution is this with one query relu(BN(W0 x)) for all groups, plus a static kernel. As a router it weighs experts
    in the place of taps, as a bias it is one vector that the query is multiplied with.
    Source: Bello, LambdaNetworks, ICLR 2021, eq. 2 (position lambdas).
    """

    query: Query = Query()
    """The query."""
    positions: Positions = Positions()
    """What it is multiplied with."""

    def __post_init__(self) -> None:
        of_kind("query", self.query, Query)
        of_kind("positions", self.positions, Positions)

    @property
    def signature(self) -> frozenset[str]:
        return frozenset("bhw")

    def build(self, site: Site) -> KernelModule:
        return QueryPositionKernel(self, site)


class QueryModule(nn.Module):
    """The queries of all pixels, `b g o d h w` on the output's grid, g and o of size 1 where they are shared."""

    def __init__(self, query: Query, site: Site) -> None:
        super().__init__()
        self.axes = tuple(1 if letter in query.shared else getattr(site, letter) for letter in "go")
        self.reads_given = query.context == "operator"
        self.relu = query.relu
        if self.reads_given:
            return
        width, dims = query.width(site), site.window.dims
        outputs = prod(self.axes) * width
        self.place = Pixel(query.downsample, site.window)
        self.project = CONVOLUTIONS[dims](site.channels, outputs, 1, bias=query.bias)
        self.norm = nn.Identity() if query.norm is None else query.norm.build(outputs, dims)

    def forward(self, context: Tensor, given: Tensor | None) -> Tensor:
        if self.reads_given:
            assert given is not None, "built with a context"
            return given.unflatten(1, (*self.axes, -1))
        query = self.norm(self.project(self.place(context)))
        return (F.relu(query) if self.relu else query).unflatten(1, (*self.axes, -1))


class PositionTable(nn.Module):
    """The learned vectors of relative places, `g d r`; a router has one place for each expert."""

    def __init__(self, positions: Positions, site: Site, width: int) -> None:
        super().__init__()
        self.layout, self.window, self.reach = positions.layout, site.window, positions.reach
        self.slots = site.slots
        if self.slots:
            sizes: Size = (self.slots,)
        else:
            sizes = (self.reach,) * site.window.dims if self.reach else site.window.reaches(site.size)
        if self.reach and site.window.fixed:
            raise SpecError(
                f"reach has {self.reach}, window has {site.window!r}: only a window that pixels have in common has a "
                "part near each of them. Leave the reach out."
            )
        groups = 1 if positions.shared else site.g
        parts: dict[str, list[tuple[int, ...]]] = {"table": [(width, *sizes)], "sum": [(width, size) for size in sizes]}
        if self.layout == "halves":
            if width % len(sizes):
                raise ShapeError(
                    f"query has {width} channels, window has {len(sizes)} dimensions: layout 'halves' needs a multiple."
                )
            parts["halves"] = [(width // len(sizes), size) for size in sizes]
        self.sizes = sizes
        self.tables = nn.ParameterList(torch.empty(groups, *shape) for shape in parts[self.layout])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw from N(0, 1 / d), so that a score of a normalised query is as large as the query."""
        for table in self.tables:
            nn.init.normal_(table, std=table.shape[1] ** -0.5)

    def forward(self, size: Size) -> Tensor:
        """Return the vectors of all places, for an input's grid."""
        if not self.slots and not self.reach and self.window.reaches(size) != self.sizes:
            raise ShapeError(
                f"x has a grid of {size}, kernel has {self.sizes} relative places: a global window's table fits one "
                "grid. Build the operator with the size of its input, or give the positions a reach."
            )
        return self._whole().flatten(2)

    def _whole(self) -> Tensor:
        if self.layout == "table":
            return self.tables[0]
        spread = []
        for axis, table in enumerate(self.tables):
            view = [1] * len(self.sizes)
            view[axis] = self.sizes[axis]
            spread.append(table.unflatten(2, view).expand(-1, -1, *self.sizes))
        return torch.cat(spread, dim=1) if self.layout == "halves" else sum(spread[1:], spread[0])


class QueryKeyKernel(KernelModule, Counted):
    """Scores of a query against the keys in its window."""

    def __init__(self, kernel: QueryKey, site: Site) -> None:
        super().__init__()
        width = kernel.query.width(site)
        self.window, self.relation, self.distribution = site.window, kernel.relation, kernel.distribution
        self.axes = (site.g, site.o, width)
        self.has_scores = kernel.relation == "dot"
        self.scale = width**-0.5 if kernel.scaled and kernel.relation == "dot" else 1.0
        self.query = QueryModule(kernel.query, site)
        self.key = CONVOLUTIONS[site.window.dims](site.channels, site.g * width, 1, bias=kernel.query.bias)
        self.positions = PositionTable(kernel.positions, site, width) if kernel.positions else None

    def forward(self, context: Tensor, given: Tensor | None = None) -> Tensor:
        g, o, _ = self.axes
        query, key, positions = self._compared(context, given)
        scores = local_scores(
            query.expand(-1, g, o, *(-1,) * (1 + self.window.dims)),
            key,
            self.window,
            relation=self.relation,
            positions=positions,
            reach=self.positions.reach if self.positions else None,
        )
        return scores[:, :, :, None]

    def scored(self, context: Tensor, given: Tensor | None = None) -> Scores:
        query, key, positions = self._compared(context, given)
        return Scores(query, key, None if positions is None else query, positions)

    def _compared(self, context: Tensor, given: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Queries, g and o of size 1 where they are shared, keys, `b g d h w`, and positions."""
        query, key = self.query(context, given), self.scale * self.key(context)
        if self.distribution:
            key = key.flatten(2).softmax(2).view_as(key)
        positions = None if self.positions is None else self.positions(tuple(context.shape[2:]))
        return query, key.unflatten(1, (self.axes[0], -1)), positions

    def own_macs(self, x: Tensor) -> int:
        """Count the products of queries and keys."""
        size = tuple(x.shape[2:])
        return x.shape[0] * prod(self.window.output_size(size)) * prod(self.window.tap_grid(size)) * prod(self.axes)


class QueryPositionKernel(KernelModule, Counted):
    """Products of a query and the positions of its taps."""

    def __init__(self, kernel: QueryPosition, site: Site) -> None:
        super().__init__()
        width = kernel.query.width(site)
        self.window, self.slots = site.window, site.slots
        self.has_scores = not site.slots
        self.query = QueryModule(kernel.query, site)
        self.positions = PositionTable(kernel.positions, site, width)
        groups = max(self.query.axes[0], 1 if kernel.positions.shared else site.g)
        self.products = groups * self.query.axes[1] * width

    def forward(self, context: Tensor, given: Tensor | None = None) -> Tensor:
        size = tuple(context.shape[2:])
        query, positions = self.query(context, given), self.positions(size)
        if self.slots:
            return torch.einsum("bgod...,gdk->bgok...", query, positions)[:, :, :, None]
        return local_products(query, positions, self.window, size, self.positions.reach)[:, :, :, None]

    def scored(self, context: Tensor, given: Tensor | None = None) -> Scores:
        return Scores(None, None, self.query(context, given), self.positions(tuple(context.shape[2:])))

    def own_macs(self, x: Tensor) -> int:
        """Count the products of queries and positions."""
        size = tuple(x.shape[2:])
        taps = self.slots or prod(self.window.tap_grid(size))
        return x.shape[0] * prod(self.window.output_size(size)) * taps * self.products
