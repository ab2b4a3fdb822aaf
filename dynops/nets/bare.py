"""An operator on its own, for probes whose answer is known."""

from torch import Tensor, nn

from dynops.errors import SpecError
from dynops.nets.network import Network, Shape
from dynops.parts.operator import Operator
from dynops.specs import spec


@spec
class Bare(Network):
    """One operator: it sums the first `outputs` channels of the input, and makes its kernel from all of them."""

    operator: Operator
    """The operator."""

    def build(self, shape: Shape, outputs: int) -> nn.Module:
        channels, *size = shape
        if outputs > channels:
            raise SpecError(f"data has {channels} input and {outputs} output channels: Bare keeps the first channels.")
        return BareOperator(self.operator.build(outputs, guide_channels=channels, size=(size[0], size[1])))


class BareOperator(nn.Module):
    """An operator that is guided by its whole input."""

    def __init__(self, operator: nn.Module) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        return self.operator(x[:, : self.operator.channels], x)
