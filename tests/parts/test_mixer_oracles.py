"""Gates, and mixers of tokens, against oracles of their own: outputs, and the gradient of every input and weight."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dynops.parts import zoo

State = dict[str, Tensor]
Compare = Callable[..., None]


def dense(features: Tensor, state: State, name: str) -> Tensor:
    """A fully connected layer, whose weights a 1x1 convolution holds."""
    return F.linear(features, state[f"{name}.weight"][:, :, 0, 0], state.get(f"{name}.bias"))


def gate(logits: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-logits))


@pytest.mark.oracle("squeeze_excitation")
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(6, 7), (5, 4), (1, 1)])
def test_squeeze_excitation_gates_each_channel_of_an_image(
    size: tuple[int, int], stride: int, assert_equal_with_gradients: Compare
) -> None:
    def oracle(x: Tensor, state: State) -> Tensor:
        hidden = dense(x.mean((2, 3)), state, "kernel.kernel.reduce").relu()
        return x[:, :, ::stride, ::stride] * gate(dense(hidden, state, "kernel.kernel.span"))[:, :, None, None]

    layer = zoo.squeeze_excitation(reduction=2).strided(stride).build(12).double()
    assert_equal_with_gradients(layer, oracle, torch.randn(3, 12, *size, dtype=torch.float64))


@pytest.mark.oracle("channel_gate")
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(6, 7), (5, 4), (1, 1)])
def test_channel_gate_reads_mean_and_maximum_with_one_network(
    size: tuple[int, int], stride: int, assert_equal_with_gradients: Compare
) -> None:
    def oracle(x: Tensor, state: State) -> Tensor:
        def network(features: Tensor) -> Tensor:
            hidden = dense(features.flatten(1), state, "kernel.kernel.context.reduce").relu()
            return dense(hidden, state, "kernel.kernel.span")

        logits = network(F.adaptive_avg_pool2d(x, 1)) + network(F.adaptive_max_pool2d(x, 1))
        return x[:, :, ::stride, ::stride] * gate(logits)[:, :, None, None]

    layer = zoo.channel_gate(reduction=2).strided(stride).build(12).double()
    assert_equal_with_gradients(layer, oracle, torch.randn(3, 12, *size, dtype=torch.float64))


@pytest.mark.oracle("spatial_gate")
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
@pytest.mark.parametrize("size", [(6, 7), (9, 4), (2, 1)])
def test_spatial_gate_convolves_mean_and_maximum_of_channels(
    kernel_size: int, size: tuple[int, int], stride: int, assert_equal_with_gradients: Compare
) -> None:
    # at a stride the statistics are averaged first, as the contexts of all kernels are
    def oracle(x: Tensor, state: State) -> Tensor:
        statistics = F.avg_pool2d(torch.stack([x.sum(1) / 5, x.max(1).values], 1), stride, ceil_mode=True)
        gates = gate(F.conv2d(statistics, state["kernel.kernel.span.weight"], padding=kernel_size // 2))
        return x[:, :, ::stride, ::stride] * gates

    layer = zoo.spatial_gate(kernel_size).strided(stride).build(5).double()
    assert_equal_with_gradients(layer, oracle, torch.randn(3, 5, *size, dtype=torch.float64))


@pytest.mark.oracle("token_mixing")
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(3, 4), (5, 2), (1, 1)])
def test_token_mixing_is_a_linear_layer_over_pixels(
    size: tuple[int, int], stride: int, assert_equal_with_gradients: Compare
) -> None:
    grid = [(length + stride - 1) // stride for length in size]

    def oracle(x: Tensor, state: State) -> Tensor:
        weight = state["kernel.weight"].view(size[0] * size[1], grid[0] * grid[1]).T  # from k p to p k
        return F.linear(x.flatten(2), weight, state["bias_kernel.weight"].flatten()).unflatten(2, grid)

    layer = zoo.token_mixing().strided(stride).build(3, size=size).double()
    assert_equal_with_gradients(layer, oracle, torch.randn(2, 3, *size, dtype=torch.float64))


@pytest.mark.oracle("pooling")
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
@pytest.mark.parametrize("size", [(6, 7), (5, 4), (2, 3), (1, 2)])
def test_pooling_is_average_pooling_less_the_pixel(
    kernel_size: int, size: tuple[int, int], stride: int, assert_equal_with_gradients: Compare
) -> None:
    def oracle(x: Tensor, state: State) -> Tensor:
        mean = F.avg_pool2d(x, kernel_size, stride=stride, padding=kernel_size // 2, count_include_pad=False)
        return mean - x[:, :, ::stride, ::stride]

    layer = zoo.pooling(kernel_size).strided(stride).build(3).double()
    assert_equal_with_gradients(layer, oracle, torch.randn(2, 3, *size, dtype=torch.float64))


@pytest.mark.oracle("shift")
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("groups", [4, 5, 12])
@pytest.mark.parametrize("size", [(6, 7), (5, 4), (1, 3)])
def test_shift_moves_four_groups_and_leaves_the_others(
    groups: int, size: tuple[int, int], stride: int, assert_equal_with_gradients: Compare
) -> None:
    s = 2

    def oracle(x: Tensor, state: State) -> Tensor:
        left, right, up, down = (torch.zeros_like(x[:, :s]) for _ in range(4))
        left[:, :, :, :-1] = x[:, :s, :, 1:]
        right[:, :, :, 1:] = x[:, s : 2 * s, :, :-1]
        up[:, :, :-1] = x[:, 2 * s : 3 * s, 1:]
        down[:, :, 1:] = x[:, 3 * s : 4 * s, :-1]
        return torch.cat([left, right, up, down, x[:, 4 * s :]], 1)[:, :, ::stride, ::stride]

    layer = zoo.shift(groups).strided(stride).build(groups * s).double()
    assert_equal_with_gradients(layer, oracle, torch.randn(2, groups * s, *size, dtype=torch.float64))


def gated_channels(x: Tensor, state: State, name: str) -> Tensor:
    """Each channel of an image, by what one network makes of its mean and of its maximum."""

    def network(features: Tensor) -> Tensor:
        return dense(dense(features, state, f"{name}.context.reduce").relu(), state, f"{name}.span")

    return x * gate(network(x.mean((2, 3))) + network(x.amax((2, 3))))[:, :, None, None]


def gated_pixels(x: Tensor, state: State, name: str) -> Tensor:
    """Each pixel, by a convolution over mean and maximum of the channels."""
    weight = state[f"{name}.span.weight"]
    statistics = torch.stack([x.mean(1), x.amax(1)], 1)
    return x * gate(F.conv2d(statistics, weight, padding=weight.shape[2] // 2))


@pytest.mark.oracle("cbam")
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
@pytest.mark.parametrize("size", [(6, 7), (5, 4), (2, 1)])
def test_cbam_gates_channels_and_then_pixels(
    kernel_size: int, size: tuple[int, int], stride: int, assert_equal_with_gradients: Compare
) -> None:
    # the gate of channels has the stride: what it reads is whole, and the gate of pixels reads what it leaves
    def oracle(x: Tensor, state: State) -> Tensor:
        channels = gated_channels(x, state, "layers.0.kernel.kernel")[:, :, ::stride, ::stride]
        return gated_pixels(channels, state, "layers.1.kernel.kernel")

    layer = zoo.cbam(reduction=2, kernel_size=kernel_size).strided(stride).build(12).double()
    assert_equal_with_gradients(layer, oracle, torch.randn(3, 12, *size, dtype=torch.float64))


@pytest.mark.oracle("mlp_mixing")
@pytest.mark.parametrize("hidden", [1, 4, 9])
@pytest.mark.parametrize("grid", [(7,), (3, 4), (5, 2), (1, 3), (2, 3, 3)])
def test_mlp_mixing_is_an_mlp_over_pixels(
    grid: tuple[int, ...], hidden: int, assert_equal_with_gradients: Compare
) -> None:
    def oracle(x: Tensor, state: State) -> Tensor:
        tokens = x.flatten(2)
        for layer in ("layers.0", "layers.2"):
            weight = state[f"{layer}.kernel.weight"].view(tokens.shape[2], -1)  # k p
            tokens = F.linear(tokens, weight.T, state[f"{layer}.bias_kernel.weight"].flatten())
            tokens = F.gelu(tokens) if layer == "layers.0" else tokens
        return tokens.unflatten(2, grid)

    layer = zoo.mlp_mixing(grid, hidden).build(3, size=grid).double()
    assert_equal_with_gradients(layer, oracle, torch.randn(2, 3, *grid, dtype=torch.float64))
