"""Kernels that are replaced by their means: the same numbers by hand, nothing where nothing varies, all put back."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dynops.errors import SpecError
from dynops.ops import Window, local_sum
from dynops.parts import (
    Channels,
    Dynamic,
    Kernel,
    LocalOperator,
    Operator,
    Parallel,
    Pointwise,
    Series,
    Static,
    averaged,
    softmax,
    zoo,
)

AXES = ("h w", "b h w")
EXACT = {"rtol": 1e-10, "atol": 1e-10}
WINDOW = Window((3, 5), stride=(1, 2))
INVOLUTION = Operator(kernel=Dynamic(context="pixel", reduction=2), channels=Channels("(g s)", g=2), window=Window(3))
Settle = Callable[[nn.Module], nn.Module]


def features(channels: int = 8, dims: int = 2) -> Tensor:
    return torch.randn(3, channels, *(5, 6, 4)[:dims], dtype=torch.float64)


def built(kernel: Kernel, channels: Channels, settled: Settle) -> LocalOperator:
    operator = Operator(kernel=kernel, channels=channels, window=WINDOW)
    return settled(operator.build(8, size=(5, 6)).double())


def check_averaged(kernel: Kernel, channels: Channels, axes: str, settled: Settle) -> None:
    """Compare with the reference sum of the mean of the kernel that the operator returned before."""
    layer, x = built(kernel, channels, settled), features()
    y, weights = layer(x, return_kernel=True)
    mean = weights
    for axis in range(len("bgoikhw")):
        if "bgoikhw"[axis] in axes:
            mean = sum(mean.unbind(axis)).unsqueeze(axis) / mean.shape[axis]
    split = layer.split
    fan_out = mean.expand(-1, -1, split.o, -1, -1, -1, -1)
    expected = split.merge(local_sum(fan_out, split.split(x), WINDOW, backend="reference"))
    with averaged(layer, axes):
        found, used = layer(x, return_kernel=True)
        torch.testing.assert_close(used, mean, **EXACT)
        torch.testing.assert_close(found, expected, **EXACT)
        torch.testing.assert_close(layer(x), expected, **EXACT)
    torch.testing.assert_close(layer(x), y, **EXACT)


@pytest.mark.parametrize("axes", AXES)
def test_operator_sums_with_the_mean_of_every_kind_of_kernel(kernel: Kernel, axes: str, settled: Settle) -> None:
    check_averaged(kernel, Channels("(g i s) -> (s g o)", g=2, s=2, o=3), axes, settled)
    check_averaged(kernel, Channels("(g s)", g=2), axes, settled)


@pytest.mark.parametrize("axes", AXES)
def test_operator_sums_with_the_mean_for_every_spread_over_channels(
    channels: Channels, axes: str, settled: Settle
) -> None:
    check_averaged(Dynamic(context="pixel", reduction=1), channels, axes, settled)


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("operator", [zoo.depthwise(), zoo.conv2d(), zoo.shared_depthwise()])
def test_static_operator_is_unchanged_to_the_bit(operator: Operator, axes: str) -> None:
    layer, x = operator.build(16), torch.randn(3, 16, 5, 6)
    y = layer(x)
    with averaged(layer, axes):
        assert torch.equal(layer(x), y)


@pytest.mark.parametrize("axes", AXES)
def test_involution_changes_unless_phi_ignores_its_input(axes: str) -> None:
    layer, x = INVOLUTION.build(8).double().eval(), features()
    y = layer(x)
    with averaged(layer, axes):
        assert not torch.allclose(layer(x), y, rtol=1e-2)
    nn.init.zeros_(layer.kernel.span.weight)
    y = layer(x)
    assert y.abs().sum() > 0
    with averaged(layer, axes):
        torch.testing.assert_close(layer(x), y, **EXACT)


def test_mean_over_the_grid_keeps_images_apart_and_that_over_the_batch_mixes_them() -> None:
    layer, x = INVOLUTION.build(8).double().eval(), features()
    with averaged(layer, "h w"):
        torch.testing.assert_close(torch.cat([layer(image[None]) for image in x]), layer(x), **EXACT)
    with averaged(layer, "b h w"):
        assert not torch.allclose(torch.cat([layer(image[None]) for image in x]), layer(x), rtol=1e-2)


def test_mean_is_taken_behind_the_normalisation() -> None:
    layer, x = replace(INVOLUTION, kernel=INVOLUTION.kernel.then(softmax)).build(8).double().eval(), features()
    logits = layer.kernel.kernel(x)
    with averaged(layer, "h w"):
        kernel = layer(x, return_kernel=True)[1]
    torch.testing.assert_close(kernel, logits.softmax(4).mean((5, 6), keepdim=True), **EXACT)


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("dims", [1, 3])
def test_grid_of_any_dimensions_is_averaged(dims: int, axes: str) -> None:
    layer, x = replace(INVOLUTION, window=Window(3, dims=dims)).build(8).double().eval(), features(8, dims)
    with averaged(layer, axes):
        kernel = layer(x, return_kernel=True)[1]
    assert kernel.shape[5:].numel() == 1
    assert kernel.shape[0] == (1 if axes == "b h w" else 3)


@pytest.mark.parametrize("name", ["condconv", "deformable_conv", "carafe", "cbam", "channel_gate", "window_attention"])
def test_every_kind_of_member_can_be_averaged(name: str) -> None:
    layer, x = getattr(zoo, name)().build(32, size=(14, 14)).eval(), torch.randn(2, 32, 14, 14)
    with torch.no_grad():
        y = layer(x)
        with averaged(layer, "b h w"):
            found = layer(x)
        assert found.shape == y.shape
        assert torch.equal(layer(x), y)


def test_bias_and_offsets_are_averaged_too() -> None:
    x = torch.randn(2, 8, 6, 6)
    by_image = replace(zoo.depthwise(), bias=Dynamic(context="global", hidden=3, norm=None)).build(8)
    moved = zoo.deformable_conv().build(8)
    with torch.no_grad():
        for parameter in moved.offsets.parameters():
            nn.init.normal_(parameter)
        biases, offsets = by_image.bias_kernel(x), moved.offsets(x, None)
        with averaged(by_image, "b h w"), averaged(moved, "h w"):
            torch.testing.assert_close(by_image.bias_kernel(x), biases.mean(0, keepdim=True))
            expected = offsets.mean((4, 5), keepdim=True).expand_as(offsets)
            torch.testing.assert_close(moved.offsets(x, None), expected)


def kernels_of(network: nn.Module) -> list[int]:
    return [id(each.kernel) for each in network.modules() if isinstance(each, LocalOperator)]


def test_all_kernels_of_a_network_are_put_back_whatever_happens() -> None:
    layers = (INVOLUTION, Pointwise(), replace(INVOLUTION, kernel=Static() + INVOLUTION.kernel))
    network = Parallel(layers=(Series(layers=layers), INVOLUTION)).build(8).double().eval()
    x, kernels, names = features(), kernels_of(network), list(network.state_dict())
    y = network(x)

    def use() -> None:
        with averaged(network, "h w"):
            assert not set(kernels_of(network)) & set(kernels)
            assert not torch.allclose(network(x), y, rtol=1e-2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    assert kernels_of(network) == kernels
    assert list(network.state_dict()) == names
    assert torch.equal(network(x), y)


def test_other_axes_are_refused() -> None:
    layer = INVOLUTION.build(8)
    message = r"^axes has 'b': must be one of 'h w', 'b h w'\.$"
    with pytest.raises(SpecError, match=message), averaged(layer, "b"):
        pass
