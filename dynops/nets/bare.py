"""A layer on its own, for probes whose answer is known."""

from torch import Tensor, nn

from dynops.errors import SpecError
from dynops.nets.network import Network, Shape
from dynops.parts.layer import Layer
from dynops.specs import of_kind, spec


@spec
class Bare(Network):
    """One layer: it sums the first `outputs` channels of the input, and makes its kernels from all of them."""

    operator: Layer
    """An operator, or operators combined."""
    guided: bool = True
    """Whether kernels are made from the whole input; False: from the channels that are summed, on any grid."""

    def __post_init__(self) -> None:
        of_kind("operator", self.operator, Layer)

    def build(self, shape: Shape, outputs: int) -> nn.Module:
        channels, *size = shape
        if outputs > channels:
            raise SpecError(f"data has {channels} input and {outputs} output channels: Bare keeps the first channels.")
        guide_channels = channels if self.guided else None
        built = self.operator.build(outputs, guide_channels=guide_channels, size=(size[0], size[1]))
        return BareOperator(built, outputs, guided=self.guided)


class BareOperator(nn.Module):
    """A layer that is guided by its whole input, or by nothing."""

    def __init__(self, operator: nn.Module, channels: int, *, guided: bool) -> None:
        super().__init__()
        self.operator = operator
        self.channels, self.guided = channels, guided

    def forward(self, x: Tensor) -> Tensor:
        summed = x[:, : self.channels]
        return self.operator(summed, x) if self.guided else self.operator(summed)
