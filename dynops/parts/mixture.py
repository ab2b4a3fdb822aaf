"""A bank of kernels and a router that weighs them."""

from dataclasses import replace

from torch import Tensor, nn

from dynops.errors import SpecError
from dynops.parts.kernel import Kernel, KernelModule, Term, combined
from dynops.parts.site import Site
from dynops.specs import of_kind, spec


@spec
class Mixture(Kernel):
    """A weighed sum of kernels: `K[b,:,p] = sum over e of router[b,e,p] * expert_e[b,:,p]`.

    The router is a kernel, too: its weights of the experts stand where others have taps, so that its context decides
    whether an image or a pixel chooses, and `.then(softmax)` or `.then(sigmoid)` normalises over the experts.

    Source: Yang et al., CondConv, NeurIPS 2019, eq. 1; Chen et al., Dynamic Convolution, CVPR 2020, eq. 2. A router
    that reads the pixel is this project's.
    """

    experts: tuple[Kernel, ...]
    """The bank: each has parameters of its own, `(Static(),) * 4` are four tables."""
    router: Kernel
    """What weighs them: any kernel but those that compare a pixel with its window."""

    def __post_init__(self) -> None:
        of_kind("experts", self.experts, tuple)
        for expert in self.experts:
            of_kind("experts", expert, Kernel)
        if len(self.experts) < 2:
            raise SpecError(f"experts has {len(self.experts)} kernels: must be two or more.")
        of_kind("router", self.router, Kernel)

    @property
    def signature(self) -> frozenset[str]:
        return self.router.signature.union(*(expert.signature for expert in self.experts))

    def build(self, site: Site) -> KernelModule:
        router = self.router.build(replace(site, g=1, o=1, i=1, slots=len(self.experts), biased=None))
        return MixtureKernel([expert.build(site) for expert in self.experts], router)


class MixtureKernel(KernelModule):
    """Experts, weighed by a router."""

    def __init__(self, experts: list[KernelModule], router: KernelModule) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.router = router

    def forward(self, context: Tensor, given: Tensor | None = None) -> Tensor:
        return combined(self.terms(context, given))

    def terms(self, context: Tensor, given: Tensor | None = None) -> list[Term]:
        """Return an expert that is the same for all pixels as a term, if pixels weigh it: never a kernel a pixel."""
        weights = self.router(context, given).split(1, dim=4)  # of each expert, b 1 1 1 1 h w
        kernels = (expert(context, given) for expert in self.experts)
        apart, merged = [], []
        for weight, kernel in zip(weights, kernels, strict=True):
            if weight.shape[5:].numel() > 1 and kernel.shape[5:].numel() == 1:
                apart.append(Term(kernel, weight))
            else:
                merged.append(Term(kernel, weight))
        return [*apart, Term(combined(merged), None)] if merged else apart
