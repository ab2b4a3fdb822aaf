"""Ablation of a trained network: its kernels, replaced by their means, so that they are the same everywhere."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from dynops.parts.kernel import KernelModule
from dynops.specs import one_of

AXES = ("h w", "b h w")
"""Axes along which kernels can be averaged; `h w` stands for the whole grid, whatever its dimensions."""


@contextmanager
def averaged(network: nn.Module, axes: str) -> Iterator[None]:
    """Let every operator inside a network use the mean of its kernel: `K[b,g,o,i,k] = mean over p of K[b,g,o,i,k,p]`.

    That is the kernel which is summed: a combined one as a whole, a normalised one after its normalisation. Kernels
    that give a bias or offsets are averaged, too. What a kernel is made from stays as it was, and so does a kernel
    that is constant along the axes; a normalised one at a masked border is not. Kernels are in memory meanwhile.

    Args:
        network: operators, or a network that has some inside; it is as before when the context ends.
        axes: `h w`, each image's mean; `b h w`, the mean of all images that are given at once.
    Raises:
        SpecError: the axes are other ones.
    """
    one_of("axes", axes, AXES)
    slots = list(_slots(network))
    try:
        for owner, name, kernel in slots:
            setattr(owner, name, AveragedKernel(kernel, axes))
        yield
    finally:
        for owner, name, kernel in slots:
            setattr(owner, name, kernel)


class AveragedKernel(KernelModule):
    """The mean of a kernel."""

    def __init__(self, kernel: KernelModule, axes: str) -> None:
        super().__init__()
        self.kernel, self.axes = kernel, axes

    def forward(self, context: Tensor, given: Tensor | None = None) -> Tensor:
        kernel = self.kernel(context, given)
        grid = tuple(range(5, kernel.dim()))
        return kernel.mean((0, *grid) if self.axes == "b h w" else grid, keepdim=True)


def _slots(owner: nn.Module) -> Iterator[tuple[nn.Module, str, KernelModule]]:
    """Find the outermost kernels, each with the module that has it and its name there."""
    for name, module in owner.named_children():
        if isinstance(module, KernelModule):
            yield owner, name, module
        else:
            yield from _slots(module)
