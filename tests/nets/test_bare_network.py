"""A bare operator: it sums the first channels of its input, guided by all of them."""

from dataclasses import replace

import pytest
import torch

from dynops.errors import SpecError
from dynops.nets import Bare
from dynops.ops import Window
from dynops.parts import Channels, Dynamic, Operator, macs
from dynops.specs import Spec

PIXEL = Operator(kernel=Dynamic(context="pixel", hidden=24), channels=Channels("g"), window=Window(3))


@pytest.mark.parametrize("context", ["pixel", "position", "window"])
def test_bare_network_is_its_operator_on_the_first_channels(context: str) -> None:
    spec = Bare(operator=replace(PIXEL, kernel=replace(PIXEL.kernel, context=context)))
    network = spec.build((16, 6, 7), 8).eval()
    x = torch.randn(2, 16, 6, 7)
    y = network(x)
    assert y.shape == (2, 8, 6, 7)
    assert torch.equal(y, network.operator(x[:, :8], x))


def test_channels_of_the_code_change_the_kernel_and_are_not_summed() -> None:
    network = Bare(operator=PIXEL).build((16, 6, 7), 8).eval()
    x = torch.randn(2, 16, 6, 7)
    recoded = torch.cat([x[:, :8], torch.randn(2, 8, 6, 7)], 1)
    assert not torch.allclose(network(recoded), network(x))
    silent = torch.cat([torch.zeros(2, 8, 6, 7), x[:, 8:]], 1)
    assert torch.equal(network(silent), torch.zeros(2, 8, 6, 7))


def test_bare_network_counts_its_guide() -> None:
    network = Bare(operator=PIXEL).build((16, 6, 7), 8)
    assert macs(network, (1, 16, 6, 7)) == 6 * 7 * (16 * 24 + 24 * 8 * 9 + 8 * 9)


def test_bare_network_goes_through_json() -> None:
    spec = Bare(operator=PIXEL)
    assert Spec.from_json(spec.to_json()) == spec


def test_more_outputs_than_channels_are_refused() -> None:
    message = r"^data has 3 input and 8 output channels: Bare keeps the first channels\.$"
    with pytest.raises(SpecError, match=message):
        Bare(operator=PIXEL).build((3, 6, 6), 8)
