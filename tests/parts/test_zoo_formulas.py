"""What the zoo says of its operators is true: the parameter formula that each states is the count that it has."""

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dynops
from dynops import Layer, zoo

LETTERS: dict[str, tuple[dict[str, Any], int, tuple[int, ...], dict[str, float]]] = {
    # arguments, width, size, and what the letters of the formula are for them
    "conv2d": ({"kernel_size": 5, "groups": 4}, 24, (6, 6), {"K": 5, "n": 4}),
    "conv_transpose2d": ({"kernel_size": 4}, 24, (6, 6), {"K": 4}),
    "depthwise": ({"kernel_size": 5}, 24, (6, 6), {"K": 5}),
    "shared_depthwise": ({"kernel_size": 5, "group_channels": 6}, 24, (6, 6), {"K": 5, "G": 4}),
    "locally_connected": ({"stride": 2}, 12, (5, 6), {"K": 3, "N": 9}),
    "low_rank_locally_connected": ({"experts": 3, "stride": 2}, 12, (5, 6), {"K": 3, "N": 9, "E": 3}),
    "deformable_conv": ({"groups": 2}, 24, (6, 6), {"K": 3, "n": 2}),
    "modulated_deformable_conv": ({"kernel_size": 5}, 24, (6, 6), {"K": 5}),
    "involution": ({"group_channels": 8, "reduction": 3}, 24, (6, 6), {"K": 7, "G": 3, "r": 3}),
    "involution_keras": (
        {"channel": 24, "group_number": 4, "reduction_ratio": 2},
        24,
        (6, 6),
        {"K": 3, "G": 4, "m": 12},
    ),
    "dynamic_depthwise": ({"context": "global"}, 24, (6, 6), {"K": 7, "r": 4}),
    "lightweight_conv": ({"heads": 6}, 24, (9,), {"K": 7, "h": 6}),
    "dynamic_conv1d": ({"heads": 6}, 24, (9,), {"K": 7, "h": 6}),
    "weightnet": ({}, 288, (6, 6), {"K": 3, "M": 2, "G": 2, "a": 18}),
    "pixel_adaptive_conv": ({}, 24, (6, 6), {"K": 5}),
    "decoupled_dynamic_filter": ({}, 24, (6, 6), {"K": 3, "m": 4}),
    "carafe": ({"scale": 3, "compressed": 10, "groups": 2}, 24, (6, 6), {"K": 5, "m": 10, "e": 3, "G": 2, "s": 3}),
    "condconv": ({"experts": 3}, 24, (6, 6), {"K": 3, "E": 3}),
    "dynamic_conv": ({}, 24, (6, 6), {"K": 3, "E": 4, "m": 6}),
    "odconv": ({}, 288, (6, 6), {"K": 3, "E": 4, "a": 18}),
    "drconv": ({"regions": 5}, 24, (6, 6), {"K": 3, "R": 5}),
    "stand_alone_attention": ({}, 32, (6, 6), {"K": 7}),
    "local_relation": ({"group_channels": 6}, 24, (6, 6), {"K": 7, "G": 4}),
    "neighbourhood_attention": ({}, 24, (8, 8), {"K": 7}),
    "window_attention": ({"block": 4, "heads": 3, "shift": 2}, 24, (6, 6), {"B": 4, "h": 3}),
    "halo_attention": ({"block": 4, "halo": 1, "heads": 4}, 24, (6, 6), {"B": 4, "H": 1, "h": 4}),
    "lambda_layer": ({"dim": 5, "heads": 4, "reach": 7}, 24, (6, 6), {"k": 5, "h": 4, "R": 7}),
    "pairwise_attention": ({"dim": 5, "share": 4}, 24, (6, 6), {"R": 5, "S": 6}),
    "patchwise_attention": ({"dim": 5, "share": 4}, 24, (6, 6), {"K": 7, "R": 5, "S": 6}),
    "outlook_attention": ({"heads": 3}, 24, (6, 6), {"K": 3, "h": 3}),
    "token_mixing": ({}, 24, (5, 6), {"N": 30}),
    "pooling": ({}, 24, (6, 6), {}),
    "shift": ({}, 24, (6, 6), {}),
    "squeeze_excitation": ({"reduction": 3}, 24, (6, 6), {"r": 3}),
    "channel_gate": ({"reduction": 3}, 24, (6, 6), {"r": 3}),
    "spatial_gate": ({}, 24, (6, 6), {"K": 7}),
    "mlp_mixing": ({"grid": (5, 6), "hidden": 7}, 24, (5, 6), {"N": 30, "D": 7}),
    "cbam": ({"reduction": 3}, 24, (6, 6), {"r": 3, "K": 7}),
    "static_plus_dynamic": ({}, 24, (6, 6), {"K": 7, "r": 4}),
    "pixel_mixture": ({"experts": 3}, 24, (6, 6), {"K": 7, "r": 4, "E": 3}),
    "involution_with_coordinates": ({"group_channels": 8}, 24, (6, 6), {"K": 7, "m": 6, "G": 3}),
}
NAMES = [operator.__name__ for operator in zoo.FAMILY]


def section(operator: Callable[..., Layer], name: str) -> str:
    """One section of an operator's docstring, as one line."""
    found = re.search(rf"^{name}: (.*(?:\n {{4}}.*)*)", inspect.getdoc(operator) or "", re.MULTILINE)
    assert found, f"{operator.__name__} states no {name}"
    return " ".join(found[1].split())


def oracles(path: Path) -> set[str]:
    """The operators that the `oracle` marks of a test file name."""
    source = path.read_text()
    marks = (
        mark
        for test in ast.walk(ast.parse(source))
        if isinstance(test, ast.FunctionDef)
        for mark in test.decorator_list
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.oracle"
    )
    names = {ast.literal_eval(name) for mark in marks for name in mark.args}
    assert all(f"zoo.{name}" in source for name in names), f"{path.name} marks an operator that it does not build"
    return names


def test_every_operator_has_an_oracle() -> None:
    marked = set().union(*map(oracles, Path(__file__).parent.glob("test_*.py")))
    missing, unknown = set(NAMES) - marked, marked - set(NAMES)
    assert not missing, f'compare {missing} with code that is not ours, in tests marked @pytest.mark.oracle("name")'
    assert not unknown, f"marks of oracles name {unknown}, which the zoo has not"


def test_every_operator_is_counted() -> None:
    assert sorted(LETTERS) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_operator_has_the_parameters_of_its_formula(name: str) -> None:
    arguments, width, size, letters = LETTERS[name]
    formula = section(getattr(zoo, name), "Parameters").split(";")[0].replace("^", "**")
    expected = eval(formula, {"C": width, **letters})
    assert getattr(zoo, name)(**arguments).describe(width, size).parameters == expected


@pytest.mark.parametrize("operator", zoo.FAMILY, ids=NAMES)
def test_operator_states_its_formula_and_paper(operator: Callable[..., Layer]) -> None:
    assert "=" in section(operator, "Formula")
    assert section(operator, "Source").endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_operator_goes_through_json_and_repr(name: str) -> None:
    spec = getattr(zoo, name)(**LETTERS[name][0])
    assert Layer.from_json(spec.to_json()) == spec == eval(repr(spec), vars(dynops))
