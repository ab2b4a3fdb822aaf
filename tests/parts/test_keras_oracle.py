"""The involution of the Keras example against Keras itself: its layers run on torch, with the same weights."""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynops.nets import KerasCNN, KerasINN
from dynops.parts import LocalOperator, zoo

NEAR = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def keras(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """Keras on torch, with its settings file in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "torch")
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        found = importlib.import_module("keras")
    assert found.backend.backend() == "torch"
    return found


@pytest.fixture(scope="module")
def involution(keras: ModuleType) -> type:
    """The example's layer, in Keras' own layers and operations."""

    class Involution(keras.layers.Layer):
        def __init__(self, channel: int, groups: int, size: int, stride: int, reduction: int) -> None:
            super().__init__()
            self.groups, self.size, self.stride = groups, size, stride
            self.pool = keras.layers.AveragePooling2D(pool_size=stride, strides=stride, padding="same")
            self.generate = keras.Sequential(
                [
                    keras.layers.Conv2D(channel // reduction, 1),
                    keras.layers.BatchNormalization(),
                    keras.layers.ReLU(),
                    keras.layers.Conv2D(size * size * groups, 1),
                ]
            )

        def build(self, shape: tuple[int | None, ...]) -> None:
            self.channels = shape[-1]
            # the example rounds down, and so fails at an odd size; its pooling and its patches round up
            self.grid = tuple(-(-length // self.stride) for length in shape[1:3])
            self.generate.build((shape[0], *self.grid, self.channels))

        def call(self, x: Tensor, training: bool | None = None) -> Tensor:
            taps = (*self.grid, self.size**2)
            context = self.pool(x) if self.stride > 1 else x
            kernel = self.generate(context, training=training)
            kernel = keras.layers.Reshape((*taps, 1, self.groups))(kernel)
            patches = keras.ops.image.extract_patches(x, self.size, strides=self.stride, padding="same")
            patches = keras.layers.Reshape((*taps, self.channels // self.groups, self.groups))(patches)
            summed = keras.ops.sum(kernel * patches, axis=3)
            return keras.layers.Reshape((*self.grid, self.channels))(summed)

    return Involution


def as_in_keras(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """A layer's weights, or their gradients, in the order and with the axes that they have in Keras."""
    order = ("reduce.weight", "reduce.bias", "norm.weight", "norm.bias", "span.weight", "span.bias")
    found = {name: named[f"kernel.{name}"] for name in order}
    return {name: each.permute(2, 3, 1, 0) if each.dim() == 4 else each for name, each in found.items()}


def leaf(x: Tensor) -> Tensor:
    """A copy in single precision, in which Keras on torch computes whatever it is given."""
    return x.detach().float().clone().requires_grad_()


def assert_near(found: Tensor, expected: Tensor, name: str) -> None:
    torch.testing.assert_close(found, expected.double(), **NEAR, msg=lambda text: f"{name}: {text}")


@pytest.mark.oracle("involution_keras")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("image", [(8, 6), (7, 9), (5, 4)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("width", "channel", "groups", "size", "reduction"),
    [
        (3, 3, 1, 3, 1),
        (3, 3, 1, 5, 2),
        (3, 16, 1, 5, 2),  # the example's third layer: hidden channels of a wider input
        (6, 6, 3, 3, 2),
        (8, 8, 2, 2, 4),
        (12, 12, 4, 4, 3),
    ],
)
def test_the_layer_is_that_of_keras(
    width: int,
    channel: int,
    groups: int,
    size: int,
    reduction: int,
    stride: int,
    image: tuple[int, int],
    training: bool,
    involution: Any,
    settled: Callable[[nn.Module], nn.Module],
) -> None:
    operator = zoo.involution_keras(channel, groups, size, stride, reduction)
    ours = settled(operator.build(width).double()).train(training)
    theirs = involution(channel, groups, size, stride, reduction)
    theirs.build((2, *image, width))
    norm = ours.kernel.norm
    before = [norm.running_mean.clone(), norm.running_var.clone()]
    weights = {name: leaf(each) for name, each in as_in_keras(dict(ours.named_parameters())).items()}
    x = torch.randn(2, width, *image, dtype=torch.float64).requires_grad_()
    their_x = leaf(x.permute(0, 2, 3, 1))

    found = ours(x)
    expected, after = theirs.stateless_call(
        list(weights.values()), [each.float() for each in before], their_x, training=training
    )
    assert_near(found, expected.permute(0, 3, 1, 2), "output")

    upstream = torch.randn_like(found)
    found.backward(upstream)
    expected.backward(upstream.permute(0, 2, 3, 1).float())
    assert_near(x.grad, their_x.grad.permute(0, 3, 1, 2), "gradient of x")
    gradients = as_in_keras({name: each.grad for name, each in ours.named_parameters()})
    for name, weight in weights.items():
        if training and name == "reduce.bias":
            # batch statistics take the mean away, and with it this bias; what is left is noise
            assert max(gradients[name].abs().max(), weight.grad.abs().max()) < 1e-3
        else:
            assert gradients[name].abs().max() > 0.01
            assert_near(gradients[name], weight.grad, f"gradient of {name}")

    mean, variance = (each.detach().double() for each in after)
    if training:
        # torch, and Keras when the example was written, divide a batch's squares by n - 1; Keras now divides them by n
        count, kept = expected[..., 0].numel(), 0.99 * before[1]
        variance = kept + (variance - kept) * count / (count - 1)
    assert_near(norm.running_mean, mean, "running mean")
    assert_near(norm.running_var, variance, "running variance")


def test_the_layers_of_the_example_have_its_shapes_and_parameters(involution: Any) -> None:
    for channel, stride, reduction in ((3, 1, 1), (3, 2, 1), (16, 1, 2)):
        theirs = involution(channel, 1, 5, stride, reduction)
        theirs.build((2, 64, 64, 3))
        ours = zoo.involution_keras(channel, kernel_size=5, stride=stride, reduction_ratio=reduction).build(3).double()
        x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
        assert theirs(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).shape == ours(x).shape
        # Keras counts the running mean and variance of each hidden channel as well
        statistics = 2 * (channel // reduction)
        assert theirs.count_params() == sum(each.numel() for each in ours.parameters()) + statistics


def example(keras: ModuleType, layers: list[Any]) -> Any:
    """A classifier of the example: what stands between its poolings, and its head."""
    first, second, third = layers
    model = keras.Sequential(
        [
            first,
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D((2, 2)),
            second,
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D((2, 2)),
            third,
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    model.build((None, 32, 32, 3))
    return model


def weights_of_keras(network: nn.Sequential, grid: tuple[int, int] = (8, 8)) -> list[Tensor]:
    """The weights of one of our classifiers as Keras lists and lays them out; it flattens a grid channels last."""
    found: list[Tensor] = []
    for layer in network:
        if isinstance(layer, LocalOperator) and layer.bias is None:
            found += as_in_keras(dict(layer.named_parameters())).values()
        elif isinstance(layer, LocalOperator):
            weight = layer.kernel.weight.reshape(layer.split.o, layer.split.i, 3, 3)
            found += [weight.permute(2, 3, 1, 0), layer.bias]
        elif isinstance(layer, nn.Linear):
            weight = layer.weight
            if not any(each.dim() == 2 for each in found):
                weight = weight.unflatten(1, (-1, *grid)).movedim(1, 3).flatten(1)
            found += [weight.T, layer.bias]
    return found


@pytest.mark.parametrize("name", ["cnn", "inn"])
def test_the_classifiers_are_those_of_keras(name: str, keras: ModuleType, involution: Any) -> None:
    if name == "cnn":
        ours, count = KerasCNN().build((3, 32, 32), 10), 319_178
        layers = [keras.layers.Conv2D(width, (3, 3), padding="same") for width in (32, 64, 64)]
    else:
        ours, count = KerasINN().build((3, 32, 32), 10), 13_080
        layers = [involution(3, 1, 3, 1, 2) for _ in range(3)]
    theirs = example(keras, layers)
    assert theirs.count_params() == count
    ours = ours.double().eval().requires_grad_(False)
    weights = weights_of_keras(ours)
    assert len(weights) == len(theirs.trainable_variables)
    for variable, weight in zip(theirs.trainable_variables, weights, strict=True):
        variable.assign(weight)
    x = 10 * torch.randn(4, 3, 32, 32, dtype=torch.float64)
    assert_near(ours(x), theirs(x.permute(0, 2, 3, 1).float(), training=False).detach(), "logits")
