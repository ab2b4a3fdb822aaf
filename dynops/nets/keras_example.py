"""The two classifiers of the Keras example on involution, layer for layer.

Source: A. R. Gosthipaty, Involutional neural networks, keras.io, 2021. Deviates: weights start as PyTorch starts them.
"""

from torch import nn

from dynops.nets.network import Network, Shape
from dynops.parts import zoo
from dynops.parts.operator import Operator
from dynops.specs import spec


@spec
class KerasCNN(Network):
    """Three 3x3 convolutions of 32, 64 and 64 channels: 319,178 parameters for 32x32 RGB images and 10 classes."""

    def build(self, shape: Shape, outputs: int) -> nn.Module:
        operators = [(zoo.conv2d(bias=True), width) for width in (32, 64, 64)]
        return _classifier(operators, shape, outputs)


@spec
class KerasINN(Network):
    """Three 3x3 involutions of one group: 13,074 trainable parameters for 32x32 RGB images and 10 classes.

    Keras counts the six running statistics as well, 13,080 in all.
    """

    def build(self, shape: Shape, outputs: int) -> nn.Module:
        involution = zoo.involution_keras(channel=3, reduction_ratio=2)
        return _classifier([(involution, shape[0])] * 3, shape, outputs)


def _classifier(operators: list[tuple[Operator, int]], shape: Shape, outputs: int) -> nn.Module:
    channels, rows, columns = shape
    layers: list[nn.Module] = []
    for number, (operator, width) in enumerate(operators):
        if number:
            layers.append(nn.MaxPool2d(2))
            rows, columns = rows // 2, columns // 2
        layers += [operator.build(channels, width, size=(rows, columns)), nn.ReLU()]
        channels = width
    head = [nn.Flatten(), nn.Linear(channels * rows * columns, 64), nn.ReLU(), nn.Linear(64, outputs)]
    return nn.Sequential(*layers, *head)
