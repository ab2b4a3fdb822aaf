"""A card tells what `describe` says and what the docstring says, and its picture is drawn for every operator."""

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

import dynops
from dynops import Layer, Operator, cards, zoo
from dynops.cards.family import make
from dynops.cards.picture import picture
from dynops.cards.python import python
from dynops.cards.sample import samples
from dynops.errors import ShapeError, SpecError
from dynops.parts import Parallel, Pointwise, Series

NAMES = [member.__name__ for member in zoo.FAMILY]
BLOCK = Series(layers=(zoo.depthwise(stride=2), Pointwise(), Parallel(layers=(zoo.conv2d(), zoo.involution(3)))))


def made(name: str, folder: Path, channels: int = 48, size: tuple[int, ...] = (14, 14)) -> cards.Card:
    found = cards.find(name, channels, size)
    return cards.card(found.layer, name=name, channels=channels, size=size, folder=folder, docs=found.docs)


def variance(path: Path) -> float:
    return float(imread(path)[..., :3].var())


@pytest.mark.parametrize("name", NAMES)
def test_every_operator_has_a_card_with_its_numbers_and_a_picture(name: str, tmp_path: Path) -> None:
    card = made(name, tmp_path)
    layer = make(getattr(zoo, name), 48, (14, 14))
    described = layer.describe(48, (14, 14)[: layer.dims])
    assert card.description == described
    assert described.kernel
    assert card.path == tmp_path / f"card-{name}.png"
    assert variance(card.path) > 0.005
    whole = " ".join(card.text.split())
    for number in (described.parameters, described.macs):
        assert f"{number:,}" in whole
    assert " ".join(described.kernel.split()) in whole
    assert "x".join(map(str, described.output)) in whole
    assert f" = {described.parameters:,}" in whole
    assert max(map(len, card.text.splitlines())) <= 100


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [40, 96])
def test_wrapped_python_makes_the_layer(name: str, width: int) -> None:
    layer = make(getattr(zoo, name), 48, (14, 14))
    assert eval(python(layer, width), {**vars(dynops.parts), **vars(dynops)}) == layer


def test_the_card_of_involution(tmp_path: Path) -> None:
    assert made("involution", tmp_path, channels=64, size=(56, 56)).text == (
        """\
involution
Involution: a kernel from each pixel, shared by a group of channels.

Formula      K[g,k,p] = (W1 relu(BN(W0 x[p])) + b1)[g,k]
             y[(g s),p] = sum over k of K[g,k,p] x[(g s),window(p,k)]
Parameters   C^2/r + 2*C/r + C/r*K^2*G + K^2*G = 4,388; G = C/s groups, r the reduction.
Source       Li et al., Involution, CVPR 2021, eq. 4 and 6.
Deviates     at a stride, an odd row or column at the end is averaged over the pixels that exist;
             the published code drops it and fails. At even sizes the two are equal.

Python
    Operator(
        kernel=Dynamic(context='pixel', reduction=4),
        channels=Channels('(g s)', s=16),
        window=Window(7),
    )

At 64 channels, 56x56
signature    {b, h, w}
kernel       b=1 g=4 o=1 i=1 k=49 h=56 w=56
parameters   4,388
MACs         22,880,256
output       64x56x56"""
    )


def test_a_layer_in_python_needs_no_docs(tmp_path: Path) -> None:
    card = cards.card(zoo.conv2d(), name="mine", channels=8, size=(9, 9), folder=tmp_path / "new")
    assert card.text.startswith("mine\n\nPython\n    Operator(")
    assert variance(tmp_path / "new" / "card-mine.png") > 0.005


def test_layers_combined_are_drawn_operator_by_operator(tmp_path: Path) -> None:
    card = cards.card(BLOCK, name="block", channels=32, size=(14, 14), folder=tmp_path)
    assert re.findall(r"^layers\S+", card.text, re.MULTILINE) == ["layers.0", "layers.2.layers.0", "layers.2.layers.1"]
    alone = cards.card(zoo.conv2d(), name="conv2d", channels=32, size=(14, 14), folder=tmp_path)
    assert imread(card.path).shape[0] > 2.5 * imread(alone.path).shape[0]


@pytest.mark.parametrize(
    "layer",
    [
        Pointwise(),
        zoo.depthwise(dims=3),
        zoo.window_attention(shift=3),
        zoo.neighbourhood_attention(dilation=2),
        zoo.involution(stride=2),
        zoo.dynamic_conv1d(5, heads=4),
    ],
    ids=["no operator", "volume", "shifted blocks", "dilated", "strided", "sequence"],
)
def test_any_layer_is_drawn(layer: Layer, tmp_path: Path) -> None:
    card = cards.card(layer, name="mine", channels=16, size=(14, 14), folder=tmp_path)
    assert variance(card.path) > 0.001


def test_a_picture_is_the_same_each_time(tmp_path: Path) -> None:
    first, second = (made("involution", tmp_path / str(run)).path for run in range(2))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("layer", "alike"),
    [
        (zoo.conv2d(), {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)}),
        (zoo.condconv(), {(0, 0), (0, 1), (0, 2)}),
        (zoo.locally_connected(), {(0, 0), (1, 0)}),
        (zoo.involution(3), {(0, 0)}),
    ],
    ids=["static", "sample", "position", "pixel"],
)
def test_kernels_in_a_picture_repeat_where_they_are_constant(layer: Operator, alike: set[tuple[int, int]]) -> None:
    page = picture(samples(layer, 64, (14, 14)), title="mine", lines=[])
    weights = [np.asarray(image.get_array()) for image in page.axes.images]
    kernels = [each for each in weights if each.shape == (3, 3)]  # two images of three outputs
    same = {divmod(number, 3) for number, each in enumerate(kernels) if np.array_equal(each, kernels[0])}
    assert len(kernels) == 6
    assert same == alike


def test_a_width_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match=r"^x has c=50 channels, channels '\(g s\)' has s=16: channels must be a"):
        cards.card(zoo.involution(), name="mine", channels=50, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_size_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"^size has 0: must be an integer of at least 1\.$"):
        cards.card(zoo.conv2d(), name="mine", size=(0, 4), folder=tmp_path)


def test_a_name_that_is_no_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"^name has 'a/b': must be a part of a file's name\. Leave out '/'\.$"):
        cards.card(zoo.conv2d(), name="a/b", folder=tmp_path)


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(SpecError, match=rf"^folder has '{re.escape(str(path))}': must be a folder, not a file\.$"):
        cards.card(zoo.conv2d(), name="mine", folder=path)
