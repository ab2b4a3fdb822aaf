"""A network's card tells what its sections give and cost, and draws them."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from matplotlib.patches import Rectangle

import dynops
from dynops import cards, zoo
from dynops.cards.network_picture import BAR, BEHIND, OPERATORS, PALE, network_picture
from dynops.errors import ShapeError, SpecError
from dynops.nets import KerasINN, Network, ResidualNetwork, metaformer, rednet, resnet, sections

SMALL = ResidualNetwork(operators=(zoo.involution(3, 4),), depths=(2, 1), width=8)


def test_the_card_of_a_small_network(tmp_path: Path) -> None:
    # a block of the first stage by hand: 1x1 of 8 * 8, involution of 8 * 2 + 4 + 2 * 18 + 18, 1x1 of 8 * 8, norms of 48
    made = cards.network_card(SMALL, name="small", shape=(3, 16, 12), outputs=10, folder=tmp_path)
    assert made.path == tmp_path / "card-small.png"
    assert made.text == (
        """\
small

Python
    ResidualNetwork(
        operators=(
            Operator(
                kernel=Dynamic(context='pixel', reduction=4),
                channels=Channels('(g s)', s=4),
                window=Window(3),
            ),
        ),
        depths=(2, 1),
        width=8,
    )

At 3x16x12, 10 classes
section  channels   grid  stride  blocks  parameters  in operators     MACs  in operators
stem            8  16x12       1       1         232             0   41,472             0
stage1          8  16x12       1       2         500           148   96,768        47,616
stage2         16    8x6       2       1         892           252   59,904        16,896
head           10      -       -       1         170             0      160             0
in all                                         1,794           400  198,304        64,512

Its operators
stage1  2 x 8 channels: 3x3; (g s), g=2 s=4; {b, h, w}
stage2  1 x 16 channels: 3x3; (g s), g=4 s=4; {b, h, w}

MACs: one for each product of a weight and a feature in a convolution, a linear layer and a local
sum, and of a query and a key or position. Biases, normalisations, activations, poolings and the
algebra of kernels count nothing."""
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: rednet(26),
        lambda: resnet(26, zoo.cbam()),
        lambda: resnet(26, zoo.halo_attention()),
        lambda: metaformer(zoo.token_mixing()),
        lambda: metaformer(),
        KerasINN,
    ],
    ids=["rednet", "layers combined", "blocks", "global", "metaformer", "no stages"],
)
def test_any_network_has_a_card(make: Callable[[], Network], tmp_path: Path) -> None:
    network = make()
    made = cards.network_card(network, name="mine", shape=(3, 64, 64), outputs=10, folder=tmp_path)
    assert float(imread(made.path)[..., :3].var()) > 0.005
    assert made.sections == sections(network, (3, 64, 64), 10)
    for section in made.sections:
        assert f"{section.parameters:,}" in made.text
        assert f"{section.macs:,}" in made.text
    assert max(map(len, made.text.split("Its operators")[0].splitlines())) <= 100


def test_the_python_of_a_card_makes_the_network(tmp_path: Path) -> None:
    made = cards.network_card(SMALL, name="small", shape=(3, 16, 16), outputs=10, folder=tmp_path)
    python = made.text.split("Python\n")[1].split("\n\nAt ")[0].strip()
    assert eval(python, {**vars(dynops.nets), **vars(dynops)}) == SMALL


def drawn(network: Network, shape: tuple[int, int, int] = (3, 16, 16)) -> tuple[list[Rectangle], list[np.ndarray]]:
    page = network_picture(sections(network, shape, 10), shape, title="mine", said="")
    return [each for each in page.axes.patches if isinstance(each, Rectangle)], [
        np.asarray(each.get_array()) for each in page.axes.images
    ]


def filled(rectangles: list[Rectangle], colour: str) -> list[Rectangle]:
    return [each for each in rectangles if each.get_fill() and each.get_facecolor()[:3] == to_rgb(colour)]


def test_a_stage_has_a_sheet_for_each_block() -> None:
    counts = [len(filled(drawn(replace(SMALL, depths=depths))[0], BEHIND)) for depths in ((1, 1), (2, 1), (2, 4))]
    assert counts == [3, 4, 7]  # the stem has one as well


def test_a_stage_shows_what_its_operator_sees() -> None:
    _, images = drawn(SMALL)
    assert [each.shape[:2] for each in images] == [(16, 16), (8, 8)]
    for image in images:
        seen = (image != np.array(to_rgb(BEHIND))).any(-1)
        rows, columns = np.nonzero(seen)
        middle = len(image) // 2
        assert seen.sum() == 9
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (middle - 1, middle + 1) * 2


def test_bars_are_as_high_as_what_they_count() -> None:
    rectangles, _ = drawn(SMALL)
    found = sections(SMALL, (3, 16, 16), 10)
    bars = [each.get_height() for each in filled(rectangles, OPERATORS)]
    rest = [each.get_height() for each in filled(rectangles, PALE)]
    for place, kind in enumerate(("parameters", "macs")):
        whole = [getattr(each, kind) for each in found]
        inside = [getattr(each, f"operator_{kind}") for each in found]
        start = place * len(found)
        assert bars[start : start + len(found)] == pytest.approx([BAR * each / max(whole) for each in inside])
        # the head's vector is drawn before the bars, in the same colour
        others = [BAR * (count - part) / max(whole) for count, part in zip(whole, inside, strict=True)]
        assert rest[1 + start : 1 + start + len(found)] == pytest.approx(others)


def test_a_picture_is_the_same_each_time(tmp_path: Path) -> None:
    first, second = (
        cards.network_card(SMALL, name="mine", shape=(3, 16, 16), folder=tmp_path / str(run)).path for run in range(2)
    )
    assert first.read_bytes() == second.read_bytes()


def test_mistakes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"^size has 0: must be an integer of at least 1\.$"):
        cards.network_card(SMALL, name="mine", shape=(3, 0, 16), folder=tmp_path)
    with pytest.raises(SpecError, match=r"^outputs has 0: must be an integer of at least 1\.$"):
        cards.network_card(SMALL, name="mine", outputs=0, folder=tmp_path)
    with pytest.raises(SpecError, match=r"^name has 'a/b': must be a part of a file's name\. Leave out '/'\.$"):
        cards.network_card(SMALL, name="a/b", shape=(3, 16, 16), folder=tmp_path)
    with pytest.raises(ShapeError, match=r"channels must be a multiple"):
        cards.network_card(replace(SMALL, width=6), name="mine", folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_small_shares_are_said_to_be_small() -> None:
    page = network_picture(sections(metaformer(), (3, 64, 64)), (3, 64, 64), title="mine", said="")
    said = [each.get_text() for each in page.axes.texts]
    assert "< 1 %" in said
    assert not [text for text in said if re.search(r"\b0 %$", text)]
