"""Normalisers against the formulas of their papers, with and without a mask."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dynops.errors import SpecError
from dynops.ops import Window
from dynops.parts import (
    Channels,
    Dynamic,
    FilterNorm,
    Normaliser,
    Operator,
    Sigmoid,
    Softmax,
    Static,
    filter_norm,
    mean_zero,
    one_hot,
    sigmoid,
    softmax,
)

NORMALISERS = (softmax, Softmax(temperature=0.5), sigmoid, Sigmoid(temperature=4.0), filter_norm, mean_zero)
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def by_hand(weights: Tensor, normaliser: Normaliser) -> Tensor:
    """One window's weights, as the paper has it."""
    if isinstance(normaliser, Softmax):
        powers = [torch.exp(each / normaliser.temperature) for each in weights]
        return torch.stack([each / sum(powers) for each in powers])
    if isinstance(normaliser, Sigmoid):
        return 1 / (1 + torch.exp(-weights / normaliser.temperature))
    centred = weights - sum(weights) / len(weights)
    return centred / (weights.std() + normaliser.eps) if isinstance(normaliser, FilterNorm) else centred


@pytest.mark.parametrize("normaliser", NORMALISERS, ids=repr)
@pytest.mark.parametrize("border", ["zeros", "mask"])
def test_normaliser_is_that_of_its_formula(normaliser: Normaliser, border: str) -> None:
    window = Window(3, border=border)
    kernel = torch.randn(2, 1, 1, 1, 9, 3, 4, dtype=torch.float64, requires_grad=True)
    inside = window.inside((3, 4)) if border == "mask" else torch.ones(9, 3, 4, dtype=torch.bool)
    found = normaliser(kernel, inside if border == "mask" else None)
    expected = torch.zeros_like(kernel)
    for b in range(2):
        for h in range(3):
            for w in range(4):
                seen = inside[:, h, w]
                expected[b, 0, 0, 0, seen, h, w] = by_hand(kernel[b, 0, 0, 0, seen, h, w], normaliser)
    torch.testing.assert_close(found, expected, **EXACT)
    weight = torch.randn_like(found)
    mine, theirs = (torch.autograd.grad(y, kernel, weight)[0] for y in (found, expected))
    torch.testing.assert_close(mine, theirs, **EXACT)
    assert torch.autograd.gradcheck(lambda each: normaliser(each, inside), (kernel,))


@pytest.mark.parametrize("border", ["zeros", "mask"])
def test_one_hot_chooses_the_greatest_inside_and_learns_as_a_softmax(border: str) -> None:
    size = (3, 4)
    inside = Window(3, border=border).inside(size) if border == "mask" else None
    kernel = torch.randn(2, 1, 1, 1, 9, *size, dtype=torch.float64, requires_grad=True)
    found = one_hot(kernel, inside)
    counted = torch.ones(9, *size, dtype=torch.bool) if inside is None else inside
    for b in range(2):
        for h in range(3):
            for w in range(4):
                weights = kernel[b, 0, 0, 0, :, h, w].tolist()
                best = max((tap for tap in range(9) if counted[tap, h, w]), key=weights.__getitem__)
                assert found[b, 0, 0, 0, :, h, w].tolist() == [float(tap == best) for tap in range(9)]
    weight = torch.randn_like(found)
    mine, theirs = (torch.autograd.grad(y, kernel, weight)[0] for y in (found, softmax(kernel, inside)))
    torch.testing.assert_close(mine, theirs, **EXACT)
    assert repr(one_hot) == "one_hot"


@pytest.mark.parametrize("normaliser", [filter_norm, mean_zero], ids=repr)
def test_kernel_without_contrast_becomes_zero_and_has_a_finite_gradient(normaliser: Normaliser) -> None:
    kernel = torch.full((1, 1, 1, 1, 9, 2, 2), 3.0, requires_grad=True)
    found = normaliser(kernel)
    found.sum().backward()
    assert torch.equal(found, torch.zeros_like(found))
    assert kernel.grad.isfinite().all()


def test_flat_softmax_under_a_mask_is_the_mean_of_the_pixels_inside() -> None:
    kernel = Static(shared="g o i k", start=0.0).then(softmax)
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    for border, inside_only in (("mask", False), ("zeros", True)):
        layer = Operator(kernel=kernel, channels=Channels("s"), window=Window(3, border=border)).build(4).double()
        expected = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=inside_only)
        torch.testing.assert_close(layer(x), expected, **EXACT)


@pytest.mark.parametrize(("size", "share"), [(3, 0.56), (7, 0.67)])
def test_softmax_loses_much_of_a_corner_to_padding_unless_it_is_masked(size: int, share: float) -> None:
    kernel = Dynamic(context="pixel", norm=None, bias=True).then(softmax)
    lost = {}
    for border in ("zeros", "mask"):
        window = Window(size, border=border)
        torch.manual_seed(0)
        layer = Operator(kernel=kernel, channels=Channels("s"), window=window).build(64)
        weights = layer(torch.randn(64, 64, 9, 9), return_kernel=True)[1]
        outside = ~window.inside((9, 9))[:, 0, 0]
        lost[border] = float(weights.detach()[:, 0, 0, 0, outside, 0, 0].sum(1).mean())
    assert lost["zeros"] == pytest.approx(share, abs=0.04)
    assert lost["mask"] == 0


def test_gain_starts_as_1_and_is_learned_for_each_tap() -> None:
    plain = Dynamic(context="pixel").then(filter_norm)
    layer = Operator(kernel=plain * Static(start=1.0), channels=Channels("g"), window=Window(3)).build(4)
    gain = layer.kernel.kernels[1].weight
    assert gain.shape == (4, 1, 1, 9)
    assert torch.equal(gain, torch.ones_like(gain))


@pytest.mark.parametrize("kind", [Softmax, Sigmoid])
@pytest.mark.parametrize("temperature", [0, -1.0, "hot", True])
def test_temperature_is_a_positive_number(kind: type, temperature: object) -> None:
    with pytest.raises(SpecError, match=rf"^temperature has {temperature!r}: must be a number greater than 0\.$"):
        kind(temperature=temperature)


@pytest.mark.parametrize("normaliser", [filter_norm, mean_zero], ids=repr)
def test_one_tap_has_no_contrast_to_normalise(normaliser: Normaliser) -> None:
    operator = Operator(kernel=Static().then(normaliser), channels=Channels("g"), window=Window(1))
    with pytest.raises(SpecError, match=rf"^window has 1 taps, {normaliser!r} needs 2: a smaller window gives it"):
        operator.build(4)
