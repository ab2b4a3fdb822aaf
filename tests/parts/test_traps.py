"""Mistakes of public implementations that would silently spoil a baseline, each by its number in the list of traps.

Those that an oracle catches have no test here: 3, a dynamic layer that is overwritten by a static one, is caught by
`test_global_dynamic_depthwise_is_a_depthwise_convolution_of_each_image`, 8, batch statistics inside phi, by
`test_kernel_of_a_pixel_depends_on_its_batch_only_through_the_statistics_of_training`.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynops.ops import Block, Window
from dynops.parts import Channels, Operator, QueryKey, softmax, zoo

Settle = Callable[[nn.Module], nn.Module]
Compare = Callable[..., None]
EXACT = {"rtol": 1e-10, "atol": 1e-10}
WIDTH = 8


def features(*size: int) -> Tensor:
    return torch.randn(2, WIDTH, *size, dtype=torch.float64)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_score_of_a_head_is_the_sum_of_its_channels_products(heads: int) -> None:
    """Trap 1: products of queries and keys that are not summed are attention of every channel by itself."""
    each_channel = Operator(kernel=QueryKey(scaled=False), channels=Channels("(g s)", g=WIDTH), window=Window(3))
    products = each_channel.build(WIDTH).double()
    attention = replace(each_channel, channels=Channels("(g s)", g=heads)).build(WIDTH).double()
    attention.load_state_dict(products.state_dict())
    x = features(4, 5)
    alone, scores = (layer(x, return_kernel=True)[1] for layer in (products, attention))
    torch.testing.assert_close(scores, alone.unflatten(1, (heads, -1)).sum(2), **EXACT)
    assert not torch.allclose(attention(x), products(x))


def inside(window: Window | Block, size: tuple[int, int]) -> Tensor:
    """Which taps see a pixel, `k h w`, place by place."""
    block, halo = (window.size, window.halo) if isinstance(window, Block) else (1, window.size // 2)
    across = range(block + 2 * halo)
    seen = torch.zeros(len(across) ** 2, *size, dtype=torch.bool)
    for (tap, (down, right)), row, column in product(
        enumerate(product(across, across)), range(size[0]), range(size[1])
    ):
        r, c = row // block * block - halo + down, column // block * block - halo + right
        seen[tap, row, column] = 0 <= r < size[0] and 0 <= c < size[1]
    return seen


MASKED = {
    "window": Window(3, border="mask"),
    "wide window": Window(7, border="mask"),
    "block": Block(3),
    "block with halo": Block(2, halo=1),
}


@pytest.mark.parametrize("name", MASKED)
def test_mask_takes_the_taps_that_see_nothing_and_leaves_the_others(name: str) -> None:
    """Trap 2: a mask of the valid taps makes attention a box mean in the interior."""
    operator = Operator(kernel=QueryKey().then(softmax), channels=Channels("(g s)", g=2), window=MASKED[name])
    weights = operator.build(WIDTH).double()(features(5, 7), return_kernel=True)[1][:, :, 0, 0]
    seen = inside(MASKED[name], (5, 7))
    assert torch.equal(weights > 0, seen.expand_as(weights))
    torch.testing.assert_close(weights.sum(2), torch.ones_like(weights[:, :, 0]), **EXACT)
    mean = 1 / seen.sum(0)
    assert ((weights - mean).abs().amax(2) > 0.01).double().mean() > 0.9


@pytest.mark.parametrize("padding", ["causal", "centre"])
@pytest.mark.parametrize("heads", [2, 4])
@pytest.mark.parametrize("pattern", ["(s g)", "(g s)"])
def test_lightweight_convolution_has_the_layouts_of_both_classes_of_fairseq(
    pattern: str, heads: int, padding: str, assert_equal_with_gradients: Compare
) -> None:
    """Trap 4: `LightweightConv1d` gives channel c the head c % H, `LightweightConv1dTBC` the head c // (C / H)."""
    operator = replace(zoo.lightweight_conv(3, heads, padding=padding), channels=Channels(pattern, g=heads))
    margins = (2, 0) if padding == "causal" else (1, 1)

    def interleaved(x: Tensor, weight: Tensor) -> Tensor:
        return F.conv1d(x.reshape(-1, heads, x.shape[2]), weight, groups=heads)

    def contiguous(x: Tensor, weight: Tensor) -> Tensor:
        steps = x.permute(2, 0, 1).reshape(x.shape[2], -1, WIDTH // heads)  # t (b h) s
        taps = torch.stack([steps[tap : tap + x.shape[2] - 2] for tap in range(3)], 3)
        summed = (taps * weight.view(1, heads, 1, 3).repeat(1, len(x), 1, 1)).sum(3)
        return summed.reshape(-1, len(x), WIDTH).permute(1, 2, 0)

    def oracle(x: Tensor, state: dict[str, Tensor]) -> Tensor:
        weight = state["kernel.kernel.weight"].view(heads, 1, 3).softmax(2)
        theirs = interleaved if pattern == "(s g)" else contiguous
        return theirs(F.pad(x, margins), weight).reshape(x.shape)

    assert_equal_with_gradients(operator.build(WIDTH).double(), oracle, features(9))


ARGUMENTS = {"involution_keras": {"channel": 48}, "window_attention": {"block": 4}}
STRIDED = [member.__name__ for member in zoo.FAMILY if member is not zoo.mlp_mixing]  # which goes from grid to grid


@pytest.mark.parametrize("name", STRIDED)
def test_stride_2_reads_the_last_row_and_column_of_an_odd_image(name: str, settled: Settle) -> None:
    """Trap 5: the published involution pools its context to a smaller grid than that of its windows, and fails."""
    operator = getattr(zoo, name)(**ARGUMENTS.get(name, {})).strided(2)
    size, halved = ((7, 9), (4, 5)) if operator.dims == 2 else ((9,), (5,))
    x = torch.randn(2, 48, *size, dtype=torch.float64, requires_grad=True)
    y = settled(operator.build(48, size=size).double())(x)
    finer = getattr(operator, "scatter", None) is not None
    assert tuple(y.shape[2:]) == operator.output_size(size) == (size if finer else halved)
    y.square().sum().backward()
    for axis in range(2, x.dim()):
        assert x.grad.select(axis, -1).abs().sum() > 0


def share_inside(operator: Operator, flat: bool, size: tuple[int, ...]) -> Tensor:
    """How much of its weight a pixel gives to pixels: what it makes of a channel of ones, `b h w`."""
    layer = replace(operator, value=None, out=None).build(WIDTH, size=size).double()
    with torch.no_grad():
        for each in layer.parameters():
            each.normal_(std=0.0 if flat else 1.0)
    x = features(*size)
    x[:, 0] = 1
    return layer(x)[:, 0]


@pytest.mark.parametrize(("taps", "lost"), [(3, 5 / 9), (7, 33 / 49)])
def test_softmax_over_zeros_loses_56_and_67_percent_of_a_corner(taps: int, lost: float) -> None:
    """Trap 6: where scores say nothing, each tap has the same share, and 5 of 9 or 33 of 49 see no pixel."""
    share = share_inside(zoo.stand_alone_attention(taps, heads=2), True, (9, 8))
    for corner in (share[:, 0, 0], share[:, 0, -1], share[:, -1, 0], share[:, -1, -1]):
        torch.testing.assert_close(1 - corner, torch.full_like(corner, lost), **EXACT)
    torch.testing.assert_close(share[:, 4, 4], torch.ones_like(share[:, 4, 4]), **EXACT)


LOSSLESS = {
    "local relation": zoo.local_relation(3, group_channels=4),
    "wide local relation": zoo.local_relation(7, group_channels=4),
    "neighbourhood": zoo.neighbourhood_attention(3, heads=2),
    "neighbourhood with places": zoo.neighbourhood_attention(5, heads=2, relative=True),
    "blocks": zoo.window_attention(4, heads=2),
    "shifted blocks": zoo.window_attention(4, heads=2, shift=2),
    "reflected": zoo.pairwise_attention(3, dim=4, share=4),
    "masked window": replace(zoo.stand_alone_attention(7, heads=2), window=Window(7, border="mask")),
    "masked halo": replace(zoo.halo_attention(4, 2, heads=2), window=Block(4, halo=2)),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_softmax_of_a_mask_of_moved_windows_and_of_blocks_loses_nothing(name: str) -> None:
    """Trap 6: local relation leaves out taps outside, neighbourhood attention moves them inside, Swin has none."""
    share = share_inside(LOSSLESS[name], False, (9, 7))
    torch.testing.assert_close(share, torch.ones_like(share), **EXACT)


@pytest.mark.parametrize(("padding", "before"), [("causal", 3), ("centre", 2)])
def test_masked_sequence_is_renormalised_as_by_the_option_of_fairseq(
    padding: str, before: int, assert_equal_with_gradients: Compare
) -> None:
    """Trap 6: with `renorm_padding`, shares are those of the taps that see an element."""
    taps = before + 1 if padding == "causal" else 2 * before + 1
    operator = zoo.dynamic_conv1d(taps, heads=2, padding=padding)
    masked = replace(operator, window=replace(operator.window, border="mask"))

    def oracle(x: Tensor, state: dict[str, Tensor]) -> Tensor:
        logits = F.conv1d(x, state["kernel.kernel.span.weight"]).unflatten(1, (2, taps))
        elements = []
        for t in range(x.shape[2]):
            seen = {tap: t + tap - before for tap in range(taps) if 0 <= t + tap - before < x.shape[2]}
            shares = logits[:, :, list(seen), t].softmax(2)
            elements.append(torch.einsum("bgk,bgsk->bgs", shares, x[..., list(seen.values())].unflatten(1, (2, -1))))
        return torch.stack(elements, 3).flatten(1, 2)

    assert_equal_with_gradients(masked.build(WIDTH).double(), oracle, features(7))


LOCAL = {
    "involution": zoo.involution(3, group_channels=4, reduction=2),
    "dynamic depthwise": zoo.dynamic_depthwise(3, reduction=2),
    "pixel mixture": zoo.pixel_mixture(3, 3, reduction=2),
    "pixel-adaptive": zoo.pixel_adaptive_conv(3),
    "stand-alone": zoo.stand_alone_attention(3, heads=2),
    "local relation": zoo.local_relation(3, group_channels=4),
    "patchwise": zoo.patchwise_attention(3, dim=4, share=4),
}


@pytest.mark.parametrize("name", LOCAL)
def test_output_reads_its_window_alone_in_an_image_that_is_not_square(name: str, settled: Settle) -> None:
    """Trap 7: a product with `@` contracts rows and columns of the image in the place of taps or channels."""
    layer = settled(LOCAL[name].build(WIDTH).double())
    x = features(4, 7).requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x)[..., 2, 4].square().sum(), x)
    read = gradient.abs().sum((0, 1)) > 0
    expected = torch.zeros(4, 7, dtype=torch.bool)
    expected[1:4, 3:6] = True
    assert torch.equal(read, expected)
