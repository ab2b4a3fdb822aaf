"""The two classifiers of the Keras example: its counts, its shapes, and its layers one by one."""

import pytest
import torch
from torch import nn

from dynops.nets import KerasCNN, KerasINN
from dynops.parts import LocalOperator, parameters, zoo

RGB = (3, 32, 32)


def test_cnn_has_the_parameters_that_keras_prints() -> None:
    assert parameters(KerasCNN().build(RGB, 10)) == 319_178


def test_inn_has_the_parameters_that_keras_prints() -> None:
    network = KerasINN().build(RGB, 10)
    statistics = [each for name, each in network.named_buffers() if not name.endswith("num_batches_tracked")]
    assert parameters(network) == 13_074
    assert sum(each.numel() for each in statistics) == 6
    assert parameters(network) + 6 == 13_080


@pytest.mark.parametrize(
    ("operator", "shape"),
    # the example's three layers, channels first and with a batch of 2 in the place of 32
    [
        (zoo.involution_keras(channel=3, kernel_size=5), (2, 3, 256, 256)),
        (zoo.involution_keras(channel=3, kernel_size=5, stride=2), (2, 3, 128, 128)),
        (zoo.involution_keras(channel=16, kernel_size=5, reduction_ratio=2), (2, 3, 256, 256)),
    ],
)
def test_layers_of_the_example_have_its_output_shapes(operator: object, shape: tuple[int, ...]) -> None:
    layer = operator.build(3)
    with torch.no_grad():
        y, kernel = layer(torch.randn(2, 3, 256, 256), return_kernel=True)
    assert y.shape == shape
    assert kernel.shape == (2, 1, 1, 1, 25, *shape[2:])


def test_layer_with_16_channels_has_8_hidden_ones() -> None:
    layer = zoo.involution_keras(channel=16, kernel_size=5, reduction_ratio=2).build(3)
    assert layer.kernel.reduce.weight.shape == (8, 3, 1, 1)
    assert parameters(layer) == 3 * 8 + 8 + 16 + 8 * 25 + 25


def keras_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding="same"),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4096, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def test_cnn_is_the_example_layer_for_layer() -> None:
    theirs, ours = keras_cnn(), KerasCNN().build(RGB, 10)
    weights = {name.rpartition(".")[0]: each for name, each in theirs.named_parameters() if name.endswith("weight")}
    for index, layer in enumerate(ours):
        with torch.no_grad():
            if isinstance(layer, LocalOperator):
                layer.kernel.weight.copy_(weights[str(index)].reshape(layer.kernel.weight.shape))
                layer.bias.copy_(theirs[index].bias)
            elif isinstance(layer, nn.Linear):
                layer.load_state_dict(theirs[index].state_dict())
    x = torch.randn(2, *RGB)
    torch.testing.assert_close(ours(x), theirs(x))


def test_inn_has_the_layers_of_the_example() -> None:
    network = KerasINN().build(RGB, 10)
    assert [type(layer).__name__ for layer in network] == [
        "LocalOperator", "ReLU", "MaxPool2d", "LocalOperator", "ReLU", "MaxPool2d", "LocalOperator", "ReLU",
        "Flatten", "Linear", "ReLU", "Linear",
    ]  # fmt: skip
    x = torch.randn(2, *RGB)
    shapes = []
    for layer in network:
        x = layer(x)
        shapes.append(tuple(x.shape))
    assert shapes[::3][:3] == [(2, 3, 32, 32), (2, 3, 16, 16), (2, 3, 8, 8)]
    assert shapes[-4:] == [(2, 192), (2, 64), (2, 64), (2, 10)]


@pytest.mark.parametrize("network", [KerasCNN(), KerasINN()])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 33, 30)])
def test_example_is_built_for_other_images(network: object, shape: tuple[int, int, int]) -> None:
    assert network.build(shape, 7)(torch.randn(2, *shape)).shape == (2, 7)
