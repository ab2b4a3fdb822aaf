"""Designs: which cells are run, and which contrasts they tell."""

from itertools import combinations, product

import numpy as np
import pytest

from dynops.ablation.claims import Difference, Interaction, Slope
from dynops.ablation.contrasts import contrast_name, weights
from dynops.ablation.designs import Fraction, FullFactorial, Levels, OneFactor
from dynops.ablation.listing import aliases, listed
from dynops.ablation.plan import Plan
from dynops.errors import SpecError


def two_level(number: int) -> tuple[Levels, ...]:
    return tuple(Levels(name, ("off", "on")) for name in "abcdefghijk"[:number])


def plan_of(design: object, factors: tuple[Levels, ...], **settings: object) -> Plan:
    return Plan(name="p", question="q", factors=factors, seeds=(0,), design=design, **settings)  # type: ignore[arg-type]


def signs(cells: list[dict[str, str]]) -> np.ndarray:
    """The levels as -1 and 1, `cell factor`."""
    return np.array([[1 if level == "on" else -1 for level in cell.values()] for cell in cells])


@pytest.mark.parametrize(
    ("factors", "resolution", "runs"),
    # the smallest two-level fractions of Box, Hunter and Hunter, Statistics for Experimenters, table 12.15
    [
        (3, 3, 4),
        (7, 3, 8),
        (4, 4, 8),
        (5, 4, 16),
        (6, 4, 16),
        (7, 4, 16),
        (8, 4, 16),
        (5, 5, 16),
        (6, 5, 32),
        (8, 5, 64),
    ],
)
def test_a_fraction_has_its_resolution_in_the_published_number_of_runs(
    factors: int, resolution: int, runs: int
) -> None:
    cells = Fraction(resolution=resolution).cells(two_level(factors))
    assert len(cells) == len({tuple(cell.values()) for cell in cells}) == runs
    columns = signs(cells)
    for size in range(1, resolution):
        for chosen in combinations(range(factors), size):
            assert abs(columns[:, chosen].prod(1).mean()) < 1


def test_a_fraction_holds_the_baseline() -> None:
    for factors, resolution in product((4, 5, 6, 7), (3, 4, 5)):
        assert set(Fraction(resolution=resolution).cells(two_level(factors))[0].values()) == {"off"}


def test_a_fraction_recovers_main_effects_whatever_pairs_interact() -> None:
    factors = two_level(6)
    plan = plan_of(Fraction(resolution=4), factors)
    generator = np.random.default_rng(0)
    main, pairs = generator.normal(size=6), generator.normal(size=(6, 6))
    cells = plan.cell_levels()
    columns = signs(cells)
    outcome = columns @ main / 2 + np.einsum("ca,cb,ab->c", columns, columns, np.triu(pairs, 1))
    by_cell = dict(zip(plan.cell_names(), outcome, strict=True))
    for number, factor in enumerate(factors):
        weight = weights(Difference(factor.name, "on", "off"), plan)
        assert sum(each * by_cell[cell] for cell, each in weight.items()) == pytest.approx(main[number])


def test_a_fraction_of_resolution_four_names_pairs_that_it_cannot_tell_apart() -> None:
    plan = plan_of(Fraction(resolution=4), two_level(4))
    found = {frozenset(name.split(":")[0] for name in names) for names in aliases(plan).values()}
    assert found == {frozenset({"a x b", "c x d"}), frozenset({"a x c", "b x d"}), frozenset({"a x d", "b x c"})}
    shown = [contrast_name(each) for each in listed(plan) if isinstance(each, Interaction)]
    assert len(shown) == 3


def test_other_designs_have_no_aliases() -> None:
    assert aliases(plan_of(FullFactorial(), two_level(3))) == {}
    assert aliases(plan_of(Fraction(resolution=5), two_level(5))) == {}
    assert aliases(plan_of(OneFactor(), two_level(3))) == {}


def test_one_factor_lets_each_in_and_leaves_each_out() -> None:
    factors = (*two_level(2), Levels("c", ("none", "some", "all")))
    cells = {tuple(cell.values()) for cell in OneFactor().cells(factors)}
    into = {("on", "off", "none"), ("off", "on", "none"), ("off", "off", "some"), ("off", "off", "all")}
    out = {("off", "on", "all"), ("on", "off", "all"), ("on", "on", "none"), ("on", "on", "some")}
    assert cells == {("off", "off", "none"), ("on", "on", "all")} | into | out
    assert {tuple(each.values()) for each in OneFactor(ways=("in",)).cells(factors)} == into | {("off", "off", "none")}


def test_one_factor_shows_simple_effects_at_both_ends_alone() -> None:
    plan = plan_of(OneFactor(), two_level(4))
    assert {contrast_name(each) for each in listed(plan)} == {
        f"{name}: on - off at {','.join(f'{other}={level}' for other in 'abcd' if other != name)}"
        for name in "abcd"
        for level in ("off", "on")
    }
    with pytest.raises(SpecError, match=r"design has 5 and 5 cells on the two sides of a: on - off: must have as many"):
        weights(Difference("a", "on", "off"), plan)


def test_regimes_cross_a_design() -> None:
    data = Levels("data", ("few", "many"), scale=(0.1, 1.0))
    plan = plan_of(OneFactor(ways=("in",)), (data, *two_level(2)), regimes=("data",))
    assert len(plan.cell_levels()) == 6
    assert [list(cell) for cell in plan.cell_levels()] == [["data", "a", "b"]] * 6
    held = Difference("a", "on", "off", at=(("b", "off"),))
    assert weights(held, plan) == {
        "data=few,a=on,b=off": 0.5,
        "data=few,a=off,b=off": -0.5,
        "data=many,a=on,b=off": 0.5,
        "data=many,a=off,b=off": -0.5,
    }


def test_a_slope_is_the_least_squares_line_of_the_effect_over_doublings() -> None:
    data = Levels("data", ("some", "few", "all"), scale=(0.2, 0.05, 1.0))
    factors = (data, *two_level(1))
    weight = weights(Slope(Difference("a", "on", "off"), "data"), factors)
    effects = {"some": 0.3, "few": -0.2, "all": 0.35}
    outcome = {f"data={level},a={a}": effect * (a == "on") for level, effect in effects.items() for a in ("off", "on")}
    found = sum(each * outcome[cell] for cell, each in weight.items())
    assert found == pytest.approx(np.polyfit(np.log2(data.scale), list(effects.values()), 1)[0])
    assert sum(weight.values()) == pytest.approx(0)


def test_slopes_fit_their_factors() -> None:
    factors = (Levels("data", ("few", "all")), *two_level(1))
    with pytest.raises(SpecError, match=r"along has 'data': must be a factor with a scale"):
        weights(Slope(Difference("a", "on", "off"), "data"), factors)
    with pytest.raises(SpecError, match=r"along has 'width': must be one of 'data', 'a'"):
        weights(Slope(Difference("a", "on", "off"), "width"), factors)


@pytest.mark.parametrize("scale", [(0.1,), (0.1, 0.1), (0.0, 1.0), (1.0, float("inf"))])
def test_a_scale_measures_each_level(scale: tuple[float, ...]) -> None:
    with pytest.raises(SpecError, match=r"factor data has scale .*: must be one positive number a level"):
        Levels("data", ("few", "all"), scale=scale)


def test_mistakes_in_designs_say_what_fits() -> None:
    with pytest.raises(SpecError, match=r"factor c has 3 levels, design is a fraction: must have two"):
        Fraction().cells((*two_level(2), Levels("c", ("x", "y", "z"))))
    with pytest.raises(SpecError, match=r"resolution has 6: must be 3, 4 or 5"):
        Fraction(resolution=6)
    with pytest.raises(SpecError, match=r"ways has \('up',\): must be 'in', 'out' or both"):
        OneFactor(ways=("up",))
    with pytest.raises(SpecError, match=r"regimes has \('a', 'b'\), all factors: must leave one"):
        plan_of(FullFactorial(), two_level(2), regimes=("a", "b"))
