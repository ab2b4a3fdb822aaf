"""Kernels that know where a tap lies relative to its pixel: learned for every relative place, or fixed at one."""

import torch
from torch import Tensor, nn

from dynops.errors import ShapeError, SpecError
from dynops.ops.geometry import Size
from dynops.ops.window import Window
from dynops.parts.kernel import Kernel, KernelModule, check_shared
from dynops.parts.site import Site
from dynops.specs import of_kind, spec


@spec
class Relative(Kernel):
    """A learned weight for every place relative to the pixel: `K[g,o,i,k,p] = table[g,o,i,place(p,k)]`.

    In a window that slides it would be a `Static` kernel; where pixels see the same block, or the border shifts the
    window, a tap lies elsewhere for each pixel. Source: Liu et al., Swin Transformer, ICCV 2021, eq. 4.
    """

    shared: str = ""
    """Axes among g o i along which the table is constant."""
    std: float = 0.02
    """Standard deviation of the normal distribution that the table starts from."""

    def __post_init__(self) -> None:
        check_shared(self.shared)
        if "k" in self.shared:
            raise SpecError(f"shared has {self.shared!r}: a kernel of places varies along k. Letters are g, o, i.")

    @property
    def signature(self) -> frozenset[str]:
        return frozenset("hw")

    def build(self, site: Site) -> KernelModule:
        site.check_taps(self)
        if site.window.fixed:
            raise SpecError(
                f"kernel has {self!r}, window has {site.window!r}: there a tap lies at the same place for every pixel. "
                "Use Static()."
            )
        return RelativeKernel(self, site)


@spec
class Delta(Kernel):
    """A kernel that is fixed: `weight` at one tap, zero at all others; each group g may look somewhere else.

    With weight 1 at the centre the local sum is the identity, elsewhere a shift.
    """

    offsets: tuple[tuple[int, ...], ...] | None = None
    """Where the tap lies, in taps from the centre, (down, right), one for all kernels g or one for each; None: at the
    centre."""
    weight: float = 1.0
    """Weight of the tap."""

    def __post_init__(self) -> None:
        if self.offsets is not None:
            of_kind("offsets", self.offsets, tuple)
            for offset in self.offsets:
                of_kind("offsets", offset, tuple)

    @property
    def signature(self) -> frozenset[str]:
        return frozenset()

    def build(self, site: Site) -> KernelModule:
        site.check_taps(self)
        return DeltaKernel(self, site)


class RelativeKernel(KernelModule):
    """A table of weights by relative place."""

    def __init__(self, kernel: Relative, site: Site) -> None:
        super().__init__()
        self.window, self.std = site.window, kernel.std
        self.reaches = site.window.reaches(site.size)
        sizes = {"g": site.g, "o": site.o, "i": site.i}
        axes = [1 if letter in kernel.shared else size for letter, size in sizes.items()]
        self.table = nn.Parameter(torch.empty(*axes, *self.reaches))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the table from a normal distribution."""
        nn.init.normal_(self.table, std=self.std)

    def forward(self, context: Tensor, given: Tensor | None = None) -> Tensor:
        size = tuple(context.shape[2:])
        if self.window.reaches(size) != self.reaches:
            raise ShapeError(
                f"x has a grid of {size}, kernel has {self.reaches} relative places: a global window's table fits one "
                "grid. Build the operator with the size of its input."
            )
        return self.table.flatten(3)[..., self.window.offsets(size, context.device)][None]


class DeltaKernel(KernelModule):
    """One weight for each kernel g, at its tap."""

    def __init__(self, kernel: Delta, site: Site) -> None:
        super().__init__()
        self.dims = site.window.dims
        if not isinstance(site.window, Window):
            raise SpecError(f"kernel has {kernel!r}, window has {site.window!r}: taps have a centre in a Window alone.")
        sizes = site.window.sizes
        offsets = kernel.offsets or ((0,) * self.dims,)
        if len(offsets) not in (1, site.g):
            raise ShapeError(
                f"offsets has {len(offsets)} places, channels have g={site.g}: give one for all, or one for each g."
            )
        table = torch.zeros(len(offsets), *sizes)
        for row, offset in zip(table, offsets, strict=True):
            row[self._tap(offset, sizes)] = kernel.weight
        self.register_buffer("table", table.flatten(1)[:, None, None], persistent=False)  # g 1 1 k

    def forward(self, context: Tensor, given: Tensor | None = None) -> Tensor:
        return self.get_buffer("table")[(None, ..., *(None,) * self.dims)]

    def _tap(self, offset: Size, sizes: Size) -> Size:
        tap = tuple(size // 2 + step for size, step in zip(sizes, offset, strict=False))
        if len(offset) != len(sizes) or not all(0 <= each < size for each, size in zip(tap, sizes, strict=True)):
            raise SpecError(f"offsets has {offset}, window has {sizes} taps: must lie inside, counted from the centre.")
        return tap
