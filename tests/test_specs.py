"""Specs: values that compare, hash, print as Python, and go to and from one canonical JSON text."""

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynops.errors import SpecError
from dynops.specs import Spec, at_least, canonical_json, digest, of_kind, one_of, spec


@spec
class SampleLeaf(Spec):
    """A spec with one field of each plain kind."""

    name: str = field(kw_only=False)
    number: int = 3
    rate: float = 0.5
    flag: bool = False
    nothing: int | None = None


@spec
class SampleTree(Spec):
    """A spec that holds specs and tuples."""

    leaf: SampleLeaf
    more: tuple[SampleLeaf, ...] = ()
    table: tuple[tuple[int, ...], ...] = ((1, 2), (3,))


LEAF = SampleLeaf("a", rate=0.25)
TREE = SampleTree(leaf=LEAF, more=(LEAF, SampleLeaf("b")), table=((), (4, 5, 6)))
NAMES = {"SampleLeaf": SampleLeaf, "SampleTree": SampleTree}


def test_specs_are_values() -> None:
    assert SampleLeaf("a", rate=0.25) == LEAF
    assert hash(SampleLeaf("a", rate=0.25)) == hash(LEAF)
    assert SampleLeaf("b", rate=0.25) != LEAF
    assert replace(LEAF, number=4).number == 4
    with pytest.raises(FrozenInstanceError):
        LEAF.number = 4


def test_fields_other_than_the_first_are_given_by_name() -> None:
    with pytest.raises(TypeError, match="positional"):
        SampleLeaf("a", 4)


@pytest.mark.parametrize("value", [LEAF, TREE, SampleLeaf('it\'s "quoted"\n')])
def test_spec_prints_as_the_python_that_makes_it(value: Spec) -> None:
    assert eval(repr(value), NAMES) == value


def test_repr_leaves_defaults_out() -> None:
    assert repr(LEAF) == "SampleLeaf('a', rate=0.25)"
    assert repr(SampleTree(leaf=SampleLeaf("b"))) == "SampleTree(leaf=SampleLeaf('b'))"


def test_json_names_the_class_and_leaves_defaults_out() -> None:
    assert json.loads(LEAF.to_json()) == {"type": "SampleLeaf", "name": "a", "rate": 0.25}
    assert json.loads(TREE.to_json())["table"] == [[], [4, 5, 6]]


@pytest.mark.parametrize("value", [LEAF, TREE, SampleTree(leaf=LEAF)])
def test_json_gives_the_spec_back_with_its_nested_tuples(value: Spec) -> None:
    again = Spec.from_json(value.to_json())
    assert again == value
    assert hash(again) == hash(value)
    assert type(again) is type(value)


leaves = st.builds(
    SampleLeaf,
    st.text(),
    number=st.integers(-(2**60), 2**60),
    rate=st.floats(allow_nan=False, allow_infinity=False),
    flag=st.booleans(),
    nothing=st.none() | st.integers(0, 9),
)


@given(leaves, leaves)
def test_equal_specs_and_only_they_have_equal_text(one: SampleLeaf, other: SampleLeaf) -> None:
    assert SampleLeaf.from_json(one.to_json()) == one
    assert (one == other) == (one.to_json() == other.to_json())
    assert (one == other) == (one.fingerprint() == other.fingerprint())


def test_whole_number_is_one_text_whether_it_is_a_float_or_not() -> None:
    assert SampleLeaf("a", rate=2) == SampleLeaf("a", rate=2.0)
    assert SampleLeaf("a", rate=2).to_json() == SampleLeaf("a", rate=2.0).to_json()


def test_text_does_not_depend_on_the_order_of_the_keys() -> None:
    assert canonical_json({"b": 1, "a": [1, {"d": 2, "c": 3}]}) == '{"a":[1,{"c":3,"d":2}],"b":1}'
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})


def test_text_and_fingerprint_are_the_same_in_another_process() -> None:
    code = "from dynops.parts import zoo; print(zoo.involution().fingerprint(), zoo.involution().to_json())"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split(
        " ", 1
    )
    here = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    ).stdout.split(" ", 1)
    assert there == here
    assert len(there[0]) == 12
    assert int(there[0], 16) >= 0


def test_new_field_with_a_default_keeps_the_fingerprint() -> None:
    @spec
    class Grown(Spec):
        old: int = 1

    before = Grown(old=2).fingerprint(), Grown().fingerprint()
    text = Grown(old=2).to_json()

    @spec
    class Grown(Spec):  # the next version of the class
        old: int = 1
        new: tuple[int, ...] = (1, 2)

    assert (Grown(old=2).fingerprint(), Grown().fingerprint()) == before
    assert Spec.from_json(text) == Grown(old=2, new=(1, 2))
    assert Grown(new=(1,)).fingerprint() != before[1]


def test_second_class_of_a_name_is_refused_in_another_module() -> None:
    foreign = type("SampleLeaf", (Spec,), {"__module__": "elsewhere", "__annotations__": {}})
    with pytest.raises(
        SpecError, match=r"^spec has name 'SampleLeaf': \S*test_specs has one of that name\. Rename one"
    ):
        spec(foreign)
    assert isinstance(Spec.from_json(LEAF.to_json()), SampleLeaf)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", r"^text has 'no json': must be JSON \(Expecting value.*\)\.$"),
        ("x" * 90, r"^text has 'x{40}': must be JSON"),
        ('{"type":"Nowhere"}', r"^plain data has type 'Nowhere': must be one of .*SampleLeaf, SampleTree.*\.$"),
        ('{"name":"a"}', r"^plain data has type None: must be one of "),
        ('{"type":["SampleLeaf"],"name":"a"}', r"^plain data has type \['SampleLeaf'\]: must be one of "),
        (
            '{"type":"SampleLeaf","name":"a","colour":1}',
            r"^SampleLeaf has colour: its fields are flag, name, nothing, number, rate\.$",
        ),
        ('{"type":"SampleLeaf"}', r"^SampleLeaf has \{'type': 'SampleLeaf'\}: .*missing 1 required .*'name'\.$"),
        ('{"type":"SampleTree","leaf":{"type":"Nowhere"}}', r"^plain data has type 'Nowhere'"),
        (
            '{"type":"Channels","pattern":3}',
            r"^Channels has .*'pattern': 3\}: 'int' object has no attribute 'split'\.$",
        ),
        ('{"type":"Window","size":null}', r"^size has None: must be an integer of at least 1\.$"),
    ],
)
def test_json_that_is_no_spec_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Spec.from_json(text)


@pytest.mark.parametrize(
    ("text", "came"),
    [(LEAF.to_json(), "SampleLeaf"), ("3", "int"), ("null", "NoneType"), ('"a"', "str"), ("[1]", "tuple")],
)
def test_json_of_another_kind_is_refused(text: str, came: str) -> None:
    with pytest.raises(SpecError, match=rf"^plain data has {came}: must describe a SampleTree\.$"):
        SampleTree.from_json(text)


@pytest.mark.parametrize("value", [[1], {"a": 1}, {1}, object()])
def test_field_that_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(SpecError, match=r": a spec holds specs, tuples, numbers, text and None only\.$"):
        SampleLeaf("a", nothing=value).to_json()


def test_checks_name_the_field_the_value_and_the_rule() -> None:
    with pytest.raises(SpecError, match=r"^mode has 'c': must be one of 'a', 'b'\.$"):
        one_of("mode", "c", ("a", "b"))
    for value in (1, True, 2.0, "2", None):
        with pytest.raises(SpecError, match=rf"^size has {value!r}: must be an integer of at least 2\.$"):
            at_least("size", value, 2)
    with pytest.raises(SpecError, match=r"^leaf has 3: must be of type SampleLeaf\.$"):
        of_kind("leaf", 3, SampleLeaf)
    one_of("mode", "a", ("a", "b"))
    at_least("size", 2, 2)
    of_kind("leaf", LEAF, SampleLeaf)
