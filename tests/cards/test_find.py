"""A layer is found by its name, in the zoo or in a file, and each mistake has a message that says the way out."""

import re
from pathlib import Path

import pytest

from dynops import cards, zoo
from dynops.errors import SpecError

FILE = '''"""My variants."""

from dataclasses import replace

from dynops import Dynamic, Operator, Series, Static, zoo

mixed = replace(zoo.involution(), kernel=Static() + Dynamic(context="pixel"))
number = 3


def doubled(factor: int = 2) -> Operator:
    """Return involution of twice the size.

    Formula: y = 2 x
    """
    return zoo.involution(3 * factor + 1)


def keras(channel: int) -> Operator:
    return zoo.involution_keras(channel)


def mixer(grid: tuple[int, int]) -> Series:
    return zoo.mlp_mixing(grid, hidden=5)


def needy(kernel_size: int, heads: int) -> Operator:
    return zoo.conv2d(kernel_size)


def wrong() -> int:
    return 5


def _hidden() -> Operator:
    return mixed
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def refused(name: str, message: str) -> None:
    with pytest.raises(SpecError, match=f"^{re.escape(message)}$"):
        cards.find(name, 64, (14, 14))


@pytest.mark.parametrize("member", zoo.FAMILY, ids=lambda member: member.__name__)
def test_every_operator_of_the_zoo_is_found_with_its_docs(member: type) -> None:
    found = cards.find(member.__name__, 64, (14, 14))
    assert found.name == member.__name__
    assert set(found.docs.sections) >= {"Formula", "Parameters", "Source"}
    assert found.docs.sentence.endswith(".")
    assert not found.docs.sentence.startswith("Return")


def test_a_value_of_a_file_is_found(file: Path) -> None:
    found = cards.find(f"{file}:mixed", 64, (14, 14))
    assert (found.name, found.docs) == ("mixed", cards.Docs())
    assert repr(found.layer.kernel) == "Static() + Dynamic(context='pixel', reduction=4)"  # type: ignore[attr-defined]


def test_a_function_of_a_file_is_called(file: Path) -> None:
    found = cards.find(f"{file}:doubled", 64, (14, 14))
    assert found.layer == zoo.involution(7)
    assert found.docs == cards.Docs(sentence="Involution of twice the size.", sections={"Formula": "y = 2 x"})


def test_a_function_that_takes_channel_is_given_the_width(file: Path) -> None:
    assert cards.find(f"{file}:keras", 48, (14, 14)).layer == zoo.involution_keras(48)


def test_a_function_that_takes_grid_is_given_the_size(file: Path) -> None:
    assert cards.find(f"{file}:mixer", 48, (14, 12)).layer == zoo.mlp_mixing((14, 12), hidden=5)


def test_a_file_is_read_anew_each_time(file: Path) -> None:
    assert cards.find(f"{file}:mixed", 64, (14, 14)).layer != zoo.conv2d()
    file.write_text("from dynops import zoo\n\nmixed = zoo.conv2d()  # another length, as times are coarse\n")
    assert cards.find(f"{file}:mixed", 64, (14, 14)).layer == zoo.conv2d()


def test_an_unknown_name_has_near_ones() -> None:
    refused(
        "involutoin",
        "name has 'involutoin': must be of the zoo, or path/to/file.py:name. Near: involution, involution_keras.",
    )


def test_a_name_with_no_near_ones_has_them_all() -> None:
    names = ", ".join(member.__name__ for member in zoo.FAMILY)
    refused("xyzzy", f"name has 'xyzzy': must be of the zoo, or path/to/file.py:name. It has {names}.")


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    name = f"{tmp_path}/none.py:mixed"
    refused(name, f"name has {name!r}: there is no file {tmp_path}/none.py. Give path/to/file.py:name.")


def test_a_name_that_the_file_lacks(file: Path) -> None:
    way_out = "must end in a name of mine.py. It has mixed, doubled, keras, mixer, needy, wrong."
    refused(f"{file}:mixt", f"name has '{file}:mixt': {way_out}")
    refused(str(file), f"name has '{file}': {way_out}")


def test_a_file_without_any_layer(tmp_path: Path) -> None:
    path = tmp_path / "empty.py"
    path.write_text("number = 3\n")
    refused(f"{path}:mixed", f"name has '{path}:mixed': must end in a name of empty.py. It has no layer either.")


def test_a_file_that_is_no_python(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mixed")
    name = f"{path}:mixed"
    refused(name, f"name has {name!r}: notes.txt is no Python file. Give path/to/file.py:name.")


@pytest.mark.parametrize(
    ("line", "raised"),
    [
        ("1 / 0", "ZeroDivisionError (division by zero)"),
        (
            "from dynops import Window; Window(4)",
            "SpecError (size has 4: an even window has no centre. Use size 3 or 5, or padding='same'.)",
        ),
        ("def", "SyntaxError (invalid syntax (broken.py, line 1))"),
    ],
    ids=["error", "dynops error", "syntax"],
)
def test_a_file_that_raises(tmp_path: Path, line: str, raised: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(f"{line}\n")
    refused(f"{path}:mixed", f"name has '{path}:mixed': broken.py must be importable, but raises {raised}.")


def test_a_value_that_is_no_layer(file: Path) -> None:
    refused(f"{file}:number", f"{file}:number has 3: must be a Layer, or a function that returns one.")
    refused(f"{file}:wrong", f"{file}:wrong has 5: must be a Layer, or a function that returns one.")


def test_a_function_with_required_arguments(file: Path) -> None:
    refused(
        f"{file}:needy",
        f"{file}:needy has required arguments kernel_size, heads: must be callable without, but for channel "
        "and grid. Give them defaults.",
    )


def test_a_width_below_one_is_refused() -> None:
    with pytest.raises(SpecError, match=r"^channels has 0: must be an integer of at least 1\.$"):
        cards.find("involution_keras", 0, (14, 14))
