"""Weights, names and sums of contrasts."""

import re
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynops.ablation.claims import Bounded, Contrast, Difference, Exceeds, Interaction
from dynops.ablation.contrasts import (
    combinations,
    combine,
    contrast_kind,
    contrast_name,
    sample,
    weights,
)
from dynops.ablation.designs import Levels
from dynops.ablation.listing import listed, main_effects_and_interactions
from dynops.ablation.plan import Plan
from dynops.ablation.shapley import shares, whole
from dynops.errors import SpecError

KERNEL = Levels("kernel", ("constant", "pixel"))
CHANNELS = Levels("channels", ("grouped", "every"))
CONTEXT = Levels("context", ("none", "pixel", "global"))
DATA = Levels("data", ("few", "some", "all"))
DYNAMIC = Difference("kernel", "pixel", "constant")
SPECIFIC = Difference("channels", "every", "grouped")
BOTH = Interaction(DYNAMIC, SPECIFIC)


def plan_of(*factors: Levels, family: tuple[Contrast, ...] = ()) -> Plan:
    return Plan(name="p", question="q", factors=factors, seeds=(0, 1, 2), family=family)


def test_main_effect_in_2x2_averages_two_cells_on_each_side() -> None:
    assert weights(DYNAMIC, (KERNEL, CHANNELS)) == {
        "kernel=constant,channels=grouped": -0.5,
        "kernel=constant,channels=every": -0.5,
        "kernel=pixel,channels=grouped": 0.5,
        "kernel=pixel,channels=every": 0.5,
    }


def test_simple_effect_is_one_cell_minus_another() -> None:
    held = Difference("kernel", "pixel", "constant", at=(("channels", "every"),))
    assert weights(held, plan_of(KERNEL, CHANNELS)) == {
        "kernel=constant,channels=every": -1.0,
        "kernel=pixel,channels=every": 1.0,
    }


def test_interaction_is_half_the_difference_of_differences() -> None:
    expected = {
        "kernel=constant,channels=grouped": 0.5,
        "kernel=constant,channels=every": -0.5,
        "kernel=pixel,channels=grouped": -0.5,
        "kernel=pixel,channels=every": 0.5,
    }
    assert weights(BOTH, (KERNEL, CHANNELS)) == expected
    assert weights(Interaction(SPECIFIC, DYNAMIC), (KERNEL, CHANNELS)) == expected


def test_levels_that_a_contrast_does_not_name_have_no_weight_in_3x2() -> None:
    assert weights(Difference("context", "global", "none"), (CONTEXT, CHANNELS)) == {
        "context=none,channels=grouped": -0.5,
        "context=none,channels=every": -0.5,
        "context=global,channels=grouped": 0.5,
        "context=global,channels=every": 0.5,
    }
    assert weights(Interaction(Difference("context", "pixel", "none"), SPECIFIC), (CONTEXT, CHANNELS)) == {
        "context=none,channels=grouped": 0.5,
        "context=none,channels=every": -0.5,
        "context=pixel,channels=grouped": -0.5,
        "context=pixel,channels=every": 0.5,
    }


def test_contrasts_in_2x2x3_average_over_the_cells_that_are_left() -> None:
    factors = (KERNEL, CHANNELS, DATA)
    main = weights(DYNAMIC, factors)
    assert len(main) == 12
    assert {cell: round(6 * weight) for cell, weight in main.items()} == {
        f"kernel={kernel},channels={channels},data={data}": 1 if kernel == "pixel" else -1
        for kernel, channels, data in product(KERNEL.levels, CHANNELS.levels, DATA.levels)
    }
    assert weights(Difference("kernel", "pixel", "constant", at=(("data", "few"),)), factors) == {
        "kernel=constant,channels=grouped,data=few": -0.5,
        "kernel=constant,channels=every,data=few": -0.5,
        "kernel=pixel,channels=grouped,data=few": 0.5,
        "kernel=pixel,channels=every,data=few": 0.5,
    }
    assert {abs(weight) for weight in weights(BOTH, factors).values()} == {1 / 6}
    held = Interaction(Difference("kernel", "pixel", "constant", at=(("data", "all"),)), SPECIFIC)
    assert weights(held, factors)["kernel=pixel,channels=every,data=all"] == 0.5
    assert len(weights(held, factors)) == 4


def test_effects_of_a_two_level_design_are_twice_the_coefficients_of_least_squares() -> None:
    factors = (KERNEL, CHANNELS, Levels("data", ("few", "all")))
    generator = np.random.default_rng(0)
    cells = plan_of(*factors).cell_names()
    outcomes = dict(zip(cells, generator.normal(size=len(cells)), strict=True))
    codes = np.array(list(product((-1, 1), repeat=3)))
    design = np.column_stack([np.ones(8), codes[:, 0], codes[:, 0] * codes[:, 1], codes[:, 1], codes[:, 2]])
    coefficients = np.linalg.lstsq(design, np.array(list(outcomes.values())), rcond=None)[0]
    for contrast, coefficient in ((DYNAMIC, coefficients[1]), (BOTH, coefficients[2])):
        value = sum(weight * outcomes[cell] for cell, weight in weights(contrast, factors).items())
        assert value == pytest.approx(2 * coefficient)


@given(st.lists(st.integers(2, 4), min_size=1, max_size=3), st.data())
def test_weights_sum_to_zero_and_their_sizes_do_not(sizes: list[int], data: st.DataObject) -> None:
    factors = tuple(Levels(f"f{index}", tuple(f"l{i}" for i in range(size))) for index, size in enumerate(sizes))
    contrast = data.draw(st.sampled_from(listed(plan_of(*factors))))
    weight = weights(contrast, factors).values()
    assert sum(weight) == pytest.approx(0, abs=1e-12)
    assert sum(abs(each) for each in weight) == pytest.approx(2)


@pytest.mark.parametrize(
    ("contrast", "message"),
    [
        (Difference("colour", "red", "blue"), "factor has 'colour': must be one of 'kernel', 'channels'."),
        (Difference("kernel", "voxel", "constant"), "high has 'voxel': must be one of 'constant', 'pixel'."),
        (Difference("kernel", "pixel", "voxel"), "low has 'voxel': must be one of 'constant', 'pixel'."),
        (Difference("kernel", "pixel", "pixel"), "kernel has high='pixel', low='pixel': must be two different levels."),
        (
            Difference("kernel", "pixel", "constant", at=(("kernel", "pixel"),)),
            "at has factor 'kernel': must not be a factor that the contrast changes.",
        ),
        (
            Difference("kernel", "pixel", "constant", at=(("colour", "red"),)),
            "factor in at has 'colour': must be one of 'kernel', 'channels'.",
        ),
        (
            Difference("kernel", "pixel", "constant", at=(("channels", "red"),)),
            "level of channels in at has 'red': must be one of 'grouped', 'every'.",
        ),
        (
            Difference("kernel", "pixel", "constant", at=(("channels", "every"), ("channels", "grouped"))),
            "at has (('channels', 'every'), ('channels', 'grouped')): must hold each factor at one level.",
        ),
        (
            Interaction(DYNAMIC, DYNAMIC),
            "interaction has factor 'kernel' twice: must change two different factors.",
        ),
        (
            Interaction(DYNAMIC, Difference("channels", "every", "grouped", at=(("kernel", "pixel"),))),
            "at has factor 'kernel': must not be a factor that the contrast changes.",
        ),
    ],
)
def test_contrast_that_does_not_fit_is_refused(contrast: Contrast, message: str) -> None:
    with pytest.raises(SpecError, match=f"^{re.escape(message)}$"):
        weights(contrast, (KERNEL, CHANNELS))


def test_names_say_what_is_compared_and_where() -> None:
    held = Difference("kernel", "pixel", "constant", at=(("channels", "every"), ("data", "few")))
    assert contrast_name(held) == "kernel: pixel - constant at channels=every,data=few"
    assert contrast_name(BOTH) == "kernel x channels: (pixel - constant) x (every - grouped)"
    assert [contrast_kind(each) for each in (DYNAMIC, held, BOTH)] == ["main", "simple", "interaction"]


def test_combining_an_effect_with_its_negative_leaves_no_cell() -> None:
    weight = weights(DYNAMIC, (KERNEL, CHANNELS, DATA))
    turned = weights(Difference("kernel", "constant", "pixel"), (KERNEL, CHANNELS, DATA))
    assert combine([(0.1, weight), (0.2, weight), (0.3, turned)]) == {}
    assert combine([(0.5, weight), (0.5, weight)]) == weight


def test_simple_effects_are_main_effect_plus_or_minus_interaction() -> None:
    factors = (KERNEL, CHANNELS)
    for level, sign in (("every", 1.0), ("grouped", -1.0)):
        simple = weights(Difference("kernel", "pixel", "constant", at=(("channels", level),)), factors)
        assert combine([(1.0, weights(DYNAMIC, factors)), (sign, weights(BOTH, factors))]) == simple


def test_list_holds_main_then_simple_then_interactions_each_once() -> None:
    plan = plan_of(CONTEXT, CHANNELS, family=(SPECIFIC, Difference("context", "global", "pixel")))
    assert [contrast_name(each) for each in listed(plan)] == [
        "context: pixel - none",
        "context: global - none",
        "channels: every - grouped",
        "context: global - pixel",
        "context: pixel - none at channels=grouped",
        "context: pixel - none at channels=every",
        "context: global - none at channels=grouped",
        "context: global - none at channels=every",
        "channels: every - grouped at context=none",
        "channels: every - grouped at context=pixel",
        "channels: every - grouped at context=global",
        "context: global - pixel at channels=grouped",
        "context: global - pixel at channels=every",
        "context x channels: (pixel - none) x (every - grouped)",
        "context x channels: (global - none) x (every - grouped)",
        "context x channels: (global - pixel) x (every - grouped)",
    ]


def test_family_that_turns_an_effect_round_turns_all_that_derive_from_it() -> None:
    turned = Difference("channels", "grouped", "every")
    held = Difference("kernel", "constant", "pixel", at=(("channels", "every"),))
    assert [contrast_name(each) for each in listed(plan_of(KERNEL, CHANNELS, family=(turned, held, turned)))] == [
        "kernel: pixel - constant",
        "channels: grouped - every",
        "kernel: pixel - constant at channels=grouped",
        "kernel: constant - pixel at channels=every",
        "channels: grouped - every at kernel=constant",
        "channels: grouped - every at kernel=pixel",
        "kernel x channels: (pixel - constant) x (grouped - every)",
    ]


def test_one_factor_has_no_simple_effects() -> None:
    assert listed(plan_of(KERNEL)) == (DYNAMIC,)


def test_default_family_is_main_effects_and_each_interaction_once() -> None:
    assert main_effects_and_interactions((KERNEL, CHANNELS)) == (DYNAMIC, SPECIFIC, BOTH)
    assert len(main_effects_and_interactions((CONTEXT, CHANNELS, DATA))) == 5 + 2 + 4 + 2


def test_sample_drops_and_names_the_seeds_that_lack_a_cell() -> None:
    outcomes = {"a": {0: 3.0, 1: 4.0, 3: 9.0}, "b": {0: 1.0, 2: 5.0, 3: 3.0}}
    made = sample({"a": 1.0, "b": -1.0}, outcomes, range(4), margin=0.5)
    assert dict(made.by_seed) == {0: 1.5, 3: 5.5}
    assert made.dropped == (1, 2)
    assert sample({"a": 1.0, "c": -1.0}, outcomes, range(4)).dropped == (0, 1, 2, 3)


def test_outcomes_that_cancel_give_zero_and_not_rounding() -> None:
    assert 0.1 + 0.2 - 0.3 != 0
    assert sample({"a": 1.0, "b": 1.0, "c": -1.0}, {"a": {0: 0.1}, "b": {0: 0.2}, "c": {0: 0.3}}, [0]).by_seed == {0: 0}


def test_sum_of_contrasts_is_tested_less_its_margin() -> None:
    plan = plan_of(KERNEL, CHANNELS)
    (one,) = combinations(Exceeds((DYNAMIC,)), plan)
    assert (one.name, one.weights, one.margin) == ("kernel: pixel - constant", weights(DYNAMIC, plan), 0.0)
    (two,) = combinations(Exceeds((DYNAMIC, SPECIFIC), margin=0.01), plan)
    assert two.name == "(kernel: pixel - constant) + (channels: every - grouped) - (0.01)"
    assert two.weights == {"kernel=pixel,channels=every": 1.0, "kernel=constant,channels=grouped": -1.0}
    assert two.margin == 0.01


def test_bound_is_tested_by_its_difference_and_its_sum() -> None:
    plan = plan_of(KERNEL, CHANNELS)
    upper, lower = combinations(Bounded(BOTH, DYNAMIC, ratio=0.5), plan)
    assert upper.name == (
        "0.5 (kernel: pixel - constant) - (kernel x channels: (pixel - constant) x (every - grouped))"
    )
    assert upper.weights == combine([(0.5, weights(DYNAMIC, plan)), (-1.0, weights(BOTH, plan))])
    assert lower.weights == combine([(0.5, weights(DYNAMIC, plan)), (1.0, weights(BOTH, plan))])


@pytest.mark.parametrize("ratio", [0.0, -0.5, float("inf"), float("nan")])
def test_bound_without_a_positive_ratio_is_refused(ratio: float) -> None:
    with pytest.raises(SpecError, match=f"^ratio has {ratio}: must be positive and finite.$"):
        Bounded(BOTH, DYNAMIC, ratio=ratio)


def test_claim_without_contrasts_is_refused() -> None:
    with pytest.raises(SpecError, match=r"^contrasts has \(\): Exceeds must hold one or more.$"):
        Exceeds(())


def test_shapley_shares_average_what_a_part_adds_over_all_orders() -> None:
    parts = (DYNAMIC, SPECIFIC, Difference("context", "global", "none"))
    factors = (KERNEL, CHANNELS, CONTEXT, DATA)
    outcomes = dict(zip(plan_of(*factors).cell_names(), np.random.default_rng(0).normal(size=36), strict=True))

    def gain(changed: set[str]) -> float:
        """Mean outcome over the levels of `data`, which does not change."""
        levels = [(part.factor, part.high if part.factor in changed else part.low) for part in parts]
        return np.mean([outcomes[",".join(f"{f}={v}" for f, v in [*levels, ("data", d)])] for d in DATA.levels])

    added: dict[str, list[float]] = {part.factor: [] for part in parts}
    for order in permutations(added):
        for place, factor in enumerate(order):
            added[factor].append(gain({*order[: place + 1]}) - gain({*order[:place]}))
    found = shares(parts, factors)
    for part, weight in zip(parts, found, strict=True):
        assert sum(value * outcomes[cell] for cell, value in weight.items()) == pytest.approx(
            np.mean(added[part.factor])
        )
    total = sum(value * outcomes[cell] for cell, value in whole(parts, factors).items())
    assert total == pytest.approx(gain(set(added)) - gain(set()))


def test_two_parts_share_as_their_main_effects_do() -> None:
    assert shares((DYNAMIC, SPECIFIC), (KERNEL, CHANNELS)) == [
        weights(each, (KERNEL, CHANNELS)) for each in (DYNAMIC, SPECIFIC)
    ]


def test_a_whole_change_names_each_factor_once_and_holds_none() -> None:
    with pytest.raises(SpecError, match=r"^change has factors kernel, kernel: must change each factor once\.$"):
        shares((DYNAMIC, DYNAMIC), (KERNEL, CHANNELS))
    held = Difference("kernel", "pixel", "constant", at=(("channels", "every"),))
    with pytest.raises(SpecError, match=r"holds no other factor\. Leave `at` out\.$"):
        shares((held,), (KERNEL, CHANNELS))
    with pytest.raises(SpecError, match=r"^high has 'global': must be one of 'constant', 'pixel'\.$"):
        shares((Difference("kernel", "global", "constant"),), (KERNEL, CHANNELS))
