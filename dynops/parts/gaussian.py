"""The pixel-adaptive kernel: how alike two pixels of a guide are."""

import torch
from torch import Tensor

from dynops.ops.geometry import Geometry
from dynops.ops.local_scores import local_scores
from dynops.parts.context import subsample
from dynops.parts.kernel import Kernel, KernelModule
from dynops.parts.site import Site
from dynops.specs import spec


@spec
class Gaussian(Kernel):
    """A kernel without parameters: `K[b,k,p] = exp(-|f[b,p] - f[b,window(p,k)]|^2 / 2)`, f the guide.

    The guide is the second input of an operator that was built with `guide_channels`, else the input itself; it is
    continued as the border says. One kernel serves all channels.

    Source: Su et al., Pixel-Adaptive Convolutional Neural Networks, CVPR 2019, eq. 3.
    """

    @property
    def signature(self) -> frozenset[str]:
        return frozenset("bhw")

    def build(self, site: Site) -> KernelModule:
        site.check_taps(self)
        return GaussianKernel(site.window)


class GaussianKernel(KernelModule):
    """Likeness of each pixel to those in its window."""

    def __init__(self, window: Geometry) -> None:
        super().__init__()
        self.window = window

    def forward(self, context: Tensor, given: Tensor | None = None) -> Tensor:
        pixel = subsample(context, self.window)[:, None, None]
        distance = local_scores(pixel, context[:, None], self.window, relation="squared_distance")
        return torch.exp(distance / 2)[:, :, :, None]
