"""What a dynamic kernel reads, and its batch norm where a batch has one value for each channel."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from dynops.ops import Window
from dynops.parts import BatchNorm, Channels, Dynamic, LocalOperator, Operator


def built(context: str, window: Window = Window(3), **fields: object) -> LocalOperator:  # noqa: B008  # a frozen value
    kernel_spec = Dynamic(context=context, **{"hidden": 6} | fields)
    return Operator(kernel=kernel_spec, channels=Channels("g"), window=window).build(8, size=(5, 6)).double()


def phi(layer: LocalOperator, context: torch.Tensor) -> torch.Tensor:
    """W1 relu(W0 c) + b1 by matrix products, `b h w (g k)`."""
    weights = layer.kernel
    hidden = F.relu(context.movedim(1, -1) @ weights.reduce.weight[..., 0, 0].T)
    return hidden @ weights.span.weight[..., 0, 0].T + weights.span.bias


@pytest.mark.parametrize("context", ["constant", "position", "global", "pixel", "window"])
def test_kernel_is_phi_of_its_context(context: str) -> None:
    layer = built(context, norm=None)
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64)
    read = {
        "constant": lambda: layer.kernel.context.table,
        "position": lambda: layer.kernel.context.table,
        "global": lambda: x.sum((2, 3), keepdim=True) / 30,
        "pixel": lambda: x,
        "window": lambda: F.conv2d(x, layer.kernel.context.gather.weight, layer.kernel.context.gather.bias, padding=1),
    }[context]()
    kernel = layer(x, return_kernel=True)[1]
    expected = phi(layer, read).unflatten(-1, (8, 1, 1, 9)).permute(0, 3, 4, 5, 6, 1, 2)
    torch.testing.assert_close(kernel, expected)


@pytest.mark.parametrize("span", ["g o i k", "k g o i", "i k o g"])
def test_span_says_the_order_of_the_outputs(span: str) -> None:
    kernel_spec = Dynamic(context="constant", hidden=4, norm=None, span=span)
    spec = Operator(kernel=kernel_spec, channels=Channels("(g i) -> (g o)", g=2), window=Window(3))
    layer = spec.build(4, 6).double()
    kernel = layer(torch.zeros(1, 4, 3, 3, dtype=torch.float64), return_kernel=True)[1]
    sizes = {"g": 2, "o": 3, "i": 2, "k": 9}
    flat = phi(layer, layer.kernel.context.table)[0, 0, 0].view([sizes[letter] for letter in span.split()])
    expected = flat.permute([span.split().index(letter) for letter in "goik"])
    torch.testing.assert_close(kernel[0, ..., 0, 0], expected)


@pytest.mark.parametrize("context", ["pixel", "window"])
def test_context_is_brought_to_the_grid_of_the_output(context: str) -> None:
    layer = built(context, Window(3, stride=(2, 3)))
    y, kernel = layer(torch.randn(2, 8, 5, 7, dtype=torch.float64), return_kernel=True)
    assert y.shape == (2, 8, 3, 3)
    assert kernel.shape[-2:] == (3, 3)


def test_subsampled_context_is_the_pixel_at_the_centre_of_the_window() -> None:
    layer = built("pixel", Window(3, stride=2), norm=None, downsample="subsample")
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64)
    kernel = layer(x, return_kernel=True)[1]
    expected = phi(layer, x[..., [0, 2, 4], :][..., [0, 2, 4]]).unflatten(-1, (8, 1, 1, 9))
    torch.testing.assert_close(kernel, expected.permute(0, 3, 4, 5, 6, 1, 2))


def test_learned_contexts_start_as_normalised_features() -> None:
    table = Operator(kernel=Dynamic(context="position"), channels=Channels("g"), window=Window(3)).build(
        64, size=(32, 32)
    )
    learned = table.kernel.context.table.detach()
    assert learned.mean().abs() < 0.02
    assert learned.std().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("context", "batch"), [("constant", 1), ("constant", 4), ("global", 1)])
def test_one_value_a_channel_is_normalised_by_the_running_statistics(context: str, batch: int) -> None:
    layer = built(context).train()
    norm = layer.kernel.norm
    with torch.no_grad():
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    x = torch.randn(batch, 8, 5, 6, dtype=torch.float64)
    y = layer(x)
    assert all(torch.equal(buffer, before[name]) for name, buffer in norm.named_buffers())
    assert torch.equal(y, layer.eval()(x))
    y.square().sum().backward()
    assert norm.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("context", "batch"), [("global", 2), ("pixel", 1), ("position", 1), ("window", 1)])
def test_several_values_a_channel_are_normalised_by_their_own_statistics(context: str, batch: int) -> None:
    layer = built(context, norm=BatchNorm(eps=1e-3, momentum=0.3)).train()
    x = torch.randn(batch, 8, 5, 6, dtype=torch.float64)
    seen = []
    layer.kernel.norm.register_forward_hook(lambda module, inputs, output: seen.extend((inputs[0], output)))
    layer(x)
    hidden, normalised = seen
    mean = hidden.mean((0, 2, 3), keepdim=True)
    variance = hidden.var((0, 2, 3), unbiased=False, keepdim=True)
    torch.testing.assert_close(normalised, (hidden - mean) / (variance + 1e-3).sqrt())
    torch.testing.assert_close(layer.kernel.norm.running_mean, 0.3 * mean.flatten())


def test_context_alone_separates_the_twins() -> None:
    pixel = Dynamic(context="pixel", hidden=6, bias=True, shared="o")
    for context, signature in (("constant", ""), ("position", "hw"), ("global", "b"), ("window", "bhw")):
        twin = replace(pixel, context=context)
        assert twin.signature == frozenset(signature)
        assert replace(twin, context="pixel") == pixel
