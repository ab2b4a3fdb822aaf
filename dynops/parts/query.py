"""Kernels of attention: each pixel's query, against the keys in its window or against learned positions."""

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynops.errors import ShapeError, SpecError
from dynops.ops.geometry import Size
from dynops.ops.local_scores import RELATIONS, local_scores
from dynops.parts.cost import Counted
from dynops.parts.dynamic import BatchNorm, Pixel
from dynops.parts.grid import CONVOLUTIONS
from dynops.parts.kernel import Kernel, KernelModule, Site
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

    def __post_init__(self) -> None:
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

    def __post_init__(self) -> None:
        one_of("layout", self.layout, LAYOUTS)


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
    """Whether keys are divided by the root of their width, as those of a dot product are."""

    def __post_init__(self) -> None:
        one_of("relation", self.relation, tuple(RELATIONS))
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

    Involution is this with one query relu(BN(W0 x)) for all groups, plus a static kernel.
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
        site.check_taps(self)
        return QueryPositionKernel(self, site)


class QueryModule(nn.Module):
    """The queries of all pixels, `b g o d h w` on the output's grid, g and o of size 1 where they are shared."""

    def __init__(self, query: Query, site: Site) -> None:
        super().__init__()
        self.axes = tuple(1 if letter in query.shared else getattr(site, letter) for letter in "go")
        width, dims = query.width(site), site.window.dims
        outputs = prod(self.axes) * width
        self.place = Pixel(query.downsample, site.window)
        self.project = CONVOLUTIONS[dims](site.channels, outputs, 1, bias=query.bias)
        self.norm = nn.Identity() if query.norm is None else query.norm.build(outputs, dims)
        self.relu = query.relu

    def forward(self, context: Tensor) -> Tensor:
        query = self.norm(self.project(self.place(context)))
        return (F.relu(query) if self.relu else query).unflatten(1, (*self.axes, -1))


class PositionTable(nn.Module):
    """The learned vectors of the taps, `g d k`."""

    def __init__(self, positions: Positions, g: int, width: int, sizes: Size) -> None:
        super().__init__()
        self.layout, self.sizes = positions.layout, sizes
        groups = 1 if positions.shared else g
        parts = {"table": [(width, prod(sizes))], "sum": [(width, size) for size in sizes]}
        if self.layout == "halves":
            if width % len(sizes):
                raise ShapeError(
                    f"query has {width} channels, window has {len(sizes)} dimensions: layout 'halves' needs a multiple."
                )
            parts["halves"] = [(width // len(sizes), size) for size in sizes]
        self.tables = nn.ParameterList(torch.empty(groups, *shape) for shape in parts[self.layout])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw from N(0, 1 / d), so that a score of a normalised query is as large as the query."""
        for table in self.tables:
            nn.init.normal_(table, std=table.shape[1] ** -0.5)

    def forward(self) -> Tensor:
        if self.layout == "table":
            return self.tables[0]
        spread = []
        for axis, table in enumerate(self.tables):
            view = [1] * len(self.sizes)
            view[axis] = self.sizes[axis]
            spread.append(table.unflatten(2, view).expand(-1, -1, *self.sizes).flatten(2))
        return torch.cat(spread, dim=1) if self.layout == "halves" else sum(spread[1:], spread[0])


class QueryKeyKernel(KernelModule, Counted):
    """Scores of a query against the keys in its window."""

    def __init__(self, kernel: QueryKey, site: Site) -> None:
        super().__init__()
        width = kernel.query.width(site)
        self.window, self.relation = site.window, kernel.relation
        self.axes = (site.g, site.o, width)
        self.scale = width**-0.5 if kernel.scaled and kernel.relation == "dot" else 1.0
        self.query = QueryModule(kernel.query, site)
        self.key = CONVOLUTIONS[site.window.dims](site.channels, site.g * width, 1, bias=kernel.query.bias)
        self.positions = PositionTable(kernel.positions, site.g, width, site.window.sizes) if kernel.positions else None

    def forward(self, context: Tensor) -> Tensor:
        g, o, width = self.axes
        query = self.query(context).expand(-1, g, o, *(-1,) * (1 + self.window.dims))
        key = self.scale * self.key(context).unflatten(1, (g, width))
        positions = None if self.positions is None else self.positions()
        scores = local_scores(query, key, self.window, relation=self.relation, positions=positions)
        return scores[:, :, :, None]

    def own_macs(self, x: Tensor) -> int:
        """Count the products of queries and keys."""
        return x.shape[0] * prod(self.window.output_size(tuple(x.shape[2:]))) * self.window.taps * prod(self.axes)


class QueryPositionKernel(KernelModule, Counted):
    """Products of a query and the positions of its taps."""

    def __init__(self, kernel: QueryPosition, site: Site) -> None:
        super().__init__()
        width = kernel.query.width(site)
        self.window = site.window
        self.query = QueryModule(kernel.query, site)
        self.positions = PositionTable(kernel.positions, site.g, width, site.window.sizes)
        groups = max(self.query.axes[0], 1 if kernel.positions.shared else site.g)
        self.products = groups * self.query.axes[1] * width

    def forward(self, context: Tensor) -> Tensor:
        query, positions = self.query(context), self.positions()
        groups = max(query.shape[1], positions.shape[0])
        query, positions = query.expand(-1, groups, *(-1,) * (query.dim() - 2)), positions.expand(groups, -1, -1)
        return torch.einsum("bgod...,gdk->bgok...", query, positions)[:, :, :, None]

    def own_macs(self, x: Tensor) -> int:
        """Count the products of queries and positions."""
        return x.shape[0] * prod(self.window.output_size(tuple(x.shape[2:]))) * self.window.taps * self.products
