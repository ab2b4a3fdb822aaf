"""From records to effects and verdicts."""

import json
from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from dynops.ablation.claims import Bounded, Contrast, Difference, Exceeds, Hypothesis, Interaction
from dynops.ablation.contrasts import weights
from dynops.ablation.designs import Levels
from dynops.ablation.effects import Effect, Effects, effects
from dynops.ablation.plan import Plan
from dynops.ablation.reporting.tables import attribution_table
from dynops.errors import RecordError, SpecError
from dynops.records import RunRecord, cell_name
from dynops.specs import canonical_json

Make = Callable[..., list[RunRecord]]
Plant = Callable[..., dict[str, dict[int, float]]]

FACTORS = (Levels("kernel", ("constant", "pixel")), Levels("channels", ("grouped", "every")))
DYNAMIC = Difference("kernel", "pixel", "constant")
SPECIFIC = Difference("channels", "every", "grouped")
BOTH = Interaction(DYNAMIC, SPECIFIC)
H1 = Hypothesis("H1", "The parts act independently.", (Bounded(BOTH, DYNAMIC, ratio=1 / 3),))
H2 = Hypothesis("H2", "Generation pays.", (Exceeds((DYNAMIC,), margin=0.01),))
PLAN = Plan(
    name="core",
    question="Which part drives the gain?",
    factors=FACTORS,
    seeds=tuple(range(8)),
    margin=0.01,
    family=(DYNAMIC, SPECIFIC, BOTH),
    hypotheses=(H1, H2),
)
CORNER = "kernel=pixel,channels=every"


def effect_of(found: Effects, contrast: Contrast) -> Effect:
    return next(each for each in found.effects if each.contrast == contrast)


def test_planted_effects_are_recovered_exactly_without_noise(records_of: Make, planted: Plant) -> None:
    found = effects(records_of(planted(dynamic=0.08, specific=-0.04, both=0.02)), PLAN)
    for contrast, size in ((DYNAMIC, 0.08), (SPECIFIC, -0.04), (BOTH, 0.02)):
        each = effect_of(found, contrast)
        assert each.estimate == pytest.approx(size, rel=1e-9)
        assert each.interval == pytest.approx((size, size), rel=1e-9)
        assert (each.p, each.p_holm) == pytest.approx((0, 0), abs=1e-12)
        assert (each.verdict, each.seeds_needed) == ("differs", None)
    simple = effect_of(found, Difference("kernel", "pixel", "constant", at=(("channels", "every"),)))
    assert simple.estimate == pytest.approx(0.08 + 0.02, rel=1e-9)
    assert [each.kind for each in found.effects] == ["main"] * 2 + ["simple"] * 4 + ["interaction"]
    assert [each.in_family for each in found.effects] == [True] * 2 + [False] * 4 + [True]


def test_a_whole_change_is_shared_out_among_its_parts(records_of: Make, planted: Plant) -> None:
    plan = replace(PLAN, change=(DYNAMIC, SPECIFIC))
    gain, *parts = effects(records_of(planted(dynamic=0.08, specific=-0.04, both=0.02, noise=0.02)), plan).attribution
    assert [each.name for each in (gain, *parts)] == [
        "whole change",
        "kernel: pixel - constant",
        "channels: every - grouped",
    ]
    assert {each.kind for each in (gain, *parts)} == {"share"}
    for seed, value in gain.by_seed.items():
        assert value == pytest.approx(sum(part.by_seed[seed] for part in parts))
    low, high = stats.ttest_1samp(parts[0].values, 0).confidence_interval()
    assert parts[0].interval == pytest.approx((low, high))
    assert effects(records_of(planted(dynamic=0.08, specific=0.0, both=0.0)), PLAN).attribution == ()


def test_a_part_has_a_percentage_of_a_whole_that_differs_from_nothing(records_of: Make, planted: Plant) -> None:
    plan = replace(PLAN, change=(DYNAMIC, SPECIFIC))
    for size, parts in ((0.06, ["100 %", "75 %", "25 %"]), (0.0, ["-", "-", "-"])):
        found = effects(records_of(planted(dynamic=size, specific=size / 3, both=0.0)), plan)
        assert [row[2] for row in attribution_table(found).rows] == parts


def test_planted_effects_lie_in_their_intervals_with_noise(records_of: Make, planted: Plant) -> None:
    hits = []
    for seed in range(20):
        found = effects(records_of(planted(dynamic=0.08, specific=-0.04, both=0.02, noise=0.02, seed=seed)), PLAN)
        for contrast, size in ((DYNAMIC, 0.08), (SPECIFIC, -0.04), (BOTH, 0.02)):
            interval = effect_of(found, contrast).interval
            assert interval is not None
            hits.append(interval[0] <= size <= interval[1])
    assert np.mean(hits) > 0.85


def test_effects_agree_with_scipy_and_statsmodels(records_of: Make, planted: Plant) -> None:
    outcomes = planted(dynamic=0.02, specific=0.004, both=0.002, noise=0.02)
    found = effects(records_of(outcomes), PLAN)
    cells = {cell: np.array(list(values.values())) for cell, values in outcomes.items()}
    held = effect_of(found, Difference("kernel", "pixel", "constant", at=(("channels", "every"),)))
    high, low = cells[CORNER], cells["kernel=constant,channels=every"]
    peer = stats.ttest_rel(high, low)
    assert held.p == pytest.approx(peer.pvalue, rel=1e-9)
    assert held.interval == pytest.approx(tuple(peer.confidence_interval(0.95)), rel=1e-9)
    assert held.p_equivalence == pytest.approx(ttost_paired(high, low, -0.01, 0.01)[0], rel=1e-9)
    raw = {}
    for contrast in PLAN.family:
        values = np.sum([weight * cells[cell] for cell, weight in weights(contrast, FACTORS).items()], axis=0)
        raw[contrast] = (stats.ttest_1samp(values, 0).pvalue, ttost_paired(values, 0 * values, -0.01, 0.01)[0])
        assert effect_of(found, contrast).p == pytest.approx(raw[contrast][0], rel=1e-9)
    for name, column in (("p_holm", 0), ("p_equivalence", 1)):
        adjusted = multipletests([p[column] for p in raw.values()], method="holm")[1]
        assert [getattr(effect_of(found, each), name) for each in raw] == pytest.approx(list(adjusted), rel=1e-9)


def test_verdicts_on_effects_are_three(records_of: Make, planted: Plant) -> None:
    equal = effects(records_of(planted(dynamic=0.08, specific=0.0, both=0.0, noise=0.002, seed=1)), PLAN)
    assert [effect_of(equal, each).verdict for each in (DYNAMIC, SPECIFIC)] == ["differs", "equivalent"]
    vague = effect_of(effects(records_of(planted(dynamic=0.02, specific=0.0, both=0.0, noise=0.08)), PLAN), DYNAMIC)
    assert vague.verdict == "undecided"
    assert vague.seeds_needed is None or vague.seeds_needed > 8


def test_effect_that_is_small_and_sure_differs_and_shows_its_equivalence(records_of: Make, planted: Plant) -> None:
    each = effect_of(effects(records_of(planted(dynamic=0.002, specific=0.0, both=0.0)), PLAN), DYNAMIC)
    assert each.verdict == "differs"
    assert each.p_equivalence == pytest.approx(0)


def test_adjusted_p_decides_in_the_family_and_raw_p_outside(records_of: Make, planted: Plant) -> None:
    outcomes = planted(dynamic=0.0, specific=0.013, both=0.0, noise=0.015, seed=1)
    records, plan = records_of(outcomes), replace(PLAN, margin=0.0)
    raw = effect_of(effects(records, replace(plan, family=())), SPECIFIC)
    assert raw.p is not None
    level = raw.p * 1.5
    strict = effect_of(effects(records, replace(plan, level=level)), SPECIFIC)
    loose = effect_of(effects(records, replace(plan, level=level, family=())), SPECIFIC)
    assert (loose.verdict, loose.p_holm, strict.p) == ("differs", None, raw.p)
    assert strict.p_holm is not None
    assert strict.p_holm > level
    assert strict.verdict == "undecided"
    assert strict.seeds_needed is not None
    assert strict.seeds_needed > 8


def test_without_a_margin_nothing_is_equivalent(records_of: Make, planted: Plant) -> None:
    each = effect_of(effects(records_of(planted(dynamic=0, specific=0, both=0)), replace(PLAN, margin=0.0)), DYNAMIC)
    assert (each.p, each.p_equivalence, each.verdict) == (1, None, "undecided")


def test_cells_without_any_spread_do_not_differ(records_of: Make) -> None:
    found = effects(records_of({cell: dict.fromkeys(range(4), 0.7) for cell in PLAN.cell_names()}), PLAN)
    for each in found.effects:
        assert (each.estimate, each.interval, each.p) == (0, (0, 0), 1)
        assert (each.p_equivalence, each.verdict) == (0, "equivalent")
    assert [each.verdict for each in found.verdicts] == ["undecided", "refuted"]
    canonical_json(found.to_plain())


@pytest.mark.parametrize("n", [1, 2])
def test_below_three_seeds_there_is_an_estimate_only(records_of: Make, planted: Plant, n: int) -> None:
    found = effects(records_of(planted(dynamic=0.08, specific=0.0, both=0.0, noise=0.01, n=n)), PLAN)
    for each in (*found.effects, *(part for verdict in found.verdicts for part in verdict.parts)):
        assert each.estimate is not None
        assert (each.interval, each.p, each.p_holm, each.p_equivalence) == (None, None, None, None)
        assert (each.verdict, each.seeds_needed) == ("undecided", None)
    for verdict in found.verdicts:
        assert (verdict.p_supported, verdict.p_refuted) == (None, None)
        assert (verdict.verdict, verdict.seeds_needed) == ("undecided", None)
    assert all(cell.n == n and cell.mean is not None and cell.interval is None for cell in found.cells)


def test_three_seeds_are_enough(records_of: Make, planted: Plant) -> None:
    found = effects(records_of(planted(dynamic=0.2, specific=0.1, both=0.0, noise=0.001, n=3)), PLAN)
    assert effect_of(found, DYNAMIC).verdict == "differs"
    assert all(cell.interval is not None for cell in found.cells)


def test_no_records_leave_every_cell_empty() -> None:
    found = effects([], PLAN)
    assert all((cell.n, cell.mean, cell.interval) == (0, None, None) for cell in found.cells)
    assert all((each.estimate, each.verdict) == (None, "undecided") for each in found.effects)


def test_seed_that_lacks_a_cell_is_dropped_and_named_where_it_is_needed(records_of: Make, planted: Plant) -> None:
    outcomes = planted(dynamic=0.08, specific=0.04, both=0.0, noise=0.01)
    del outcomes[CORNER][5]
    found = effects(records_of(outcomes), PLAN)
    assert effect_of(found, DYNAMIC).dropped == (5,)
    assert list(effect_of(found, DYNAMIC).by_seed) == [0, 1, 2, 3, 4, 6, 7]
    assert effect_of(found, Difference("kernel", "pixel", "constant", at=(("channels", "grouped"),))).dropped == ()
    assert all(part.dropped == (5,) for verdict in found.verdicts for part in verdict.parts)


def test_first_result_of_a_point_counts_and_a_failure_only_without_a_result(records_of: Make, planted: Plant) -> None:
    records = records_of(planted(dynamic=0.08, specific=0.04, both=0.0, noise=0.01))
    again = replace(records[0], metrics={"accuracy": 0.0})
    failure = replace(records[0], status="failed", metrics={}, reason="RuntimeError")
    assert effects([failure, *records, again, failure], PLAN) == effects(records, PLAN)
    lost = replace(records[-1], status="failed", metrics={}, reason="RuntimeError")
    found = effects([*records[:-1], lost, lost], PLAN)
    assert {cell.name: (cell.n, cell.failed) for cell in found.cells if cell.failed} == {CORNER: (7, 1)}
    assert effect_of(found, DYNAMIC).dropped == (7,)


def test_diverged_run_is_a_result_and_is_counted(records_of: Make, planted: Plant) -> None:
    records = records_of(planted(dynamic=0.08, specific=0.04, both=0.0, noise=0.01))
    records[-1] = replace(records[-1], status="diverged", metrics={"accuracy": 0.1})
    found = effects(records, PLAN)
    corner = next(cell for cell in found.cells if cell.name == CORNER)
    assert (corner.n, corner.diverged, corner.failed) == (8, 1, 0)
    assert effect_of(found, DYNAMIC).by_seed[7] < 0


def test_cells_say_what_they_cost(records_of: Make, planted: Plant) -> None:
    records = [
        replace(each, parameters=196, macs=1000, step_milliseconds=float(each.seed))
        for each in records_of(planted(dynamic=0.08, specific=0.04, both=0.0, noise=0.01))
    ]
    cell = effects(records, PLAN).cells[0]
    assert (cell.parameters, cell.macs, cell.step_milliseconds) == (196, 1000, 3.5)
    values = [each.metrics["accuracy"] for each in records if each.cell == cell.name]
    assert cell.mean == pytest.approx(np.mean(values))
    assert cell.interval == pytest.approx(tuple(stats.ttest_1samp(values, 0).confidence_interval(0.95)))


def test_without_a_plan_the_records_give_factors_baselines_and_family(records_of: Make, planted: Plant) -> None:
    records = records_of(planted(dynamic=0.08, specific=0.04, both=0.0, noise=0.01))
    inferred = effects(records)
    given_plan = effects(records, replace(PLAN, margin=0.0, hypotheses=()))
    assert inferred == given_plan
    same = [replace(each, levels={**each.levels, "data": "digits"}) for each in records]
    assert effects(same) == inferred


def test_lower_outcome_does_not_turn_an_effect_round(records_of: Make, planted: Plant) -> None:
    records = records_of(planted(dynamic=0.08, specific=0.04, both=0.0, noise=0.01), "loss")
    plan = replace(PLAN, outcome="loss", unit="raw", higher_is_better=False)
    found = effects(records, plan)
    assert found.effects == effects(records, replace(plan, higher_is_better=True)).effects
    assert (found.outcome, found.unit) == ("loss", "raw")


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 1000))
def test_order_of_the_records_changes_nothing(records_of: Make, planted: Plant, random: Random, seed: int) -> None:
    records = records_of(planted(dynamic=0.03, specific=0.02, both=0.01, noise=0.02, seed=seed))
    records[3] = replace(records[3], status="failed", metrics={})
    expected = effects(records, PLAN)
    random.shuffle(records)
    assert effects(records, PLAN) == expected


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=8, max_size=8), st.integers(0, 1000))
def test_shift_of_a_whole_seed_changes_no_effect(
    records_of: Make, planted: Plant, shifts: list[float], seed: int
) -> None:
    outcomes = planted(dynamic=0.03, specific=0.02, both=0.01, noise=0.02, seed=seed)
    shifted = {cell: {s: value + shifts[s] for s, value in values.items()} for cell, values in outcomes.items()}
    for one, other in zip(
        effects(records_of(outcomes), PLAN).effects, effects(records_of(shifted), PLAN).effects, strict=True
    ):
        assert (one.name, one.verdict) == (other.name, other.verdict)
        assert other.estimate == pytest.approx(one.estimate, abs=1e-9)
        assert other.interval == pytest.approx(one.interval, abs=1e-9)
        assert other.p == pytest.approx(one.p, rel=1e-6)


def test_same_records_give_the_same_plain_data(records_of: Make, planted: Plant) -> None:
    records = records_of(planted(dynamic=0.03, specific=0.02, both=0.01, noise=0.02))
    plain = effects(records, PLAN).to_plain()
    assert canonical_json(plain) == canonical_json(effects(iter(records), PLAN).to_plain())
    assert json.loads(canonical_json(plain)) == plain
    assert Difference.from_plain(plain["effects"][0]["contrast"]) == DYNAMIC
    assert plain["effects"][0]["by_seed"].keys() == {str(seed) for seed in range(8)}
    assert plain["verdicts"][0]["parts"][0]["kind"] == "claim"


@pytest.mark.parametrize(
    "levels", [{"kernel": "pixel"}, {"kernel": "voxel", "channels": "every"}, {"kernel": "pixel", "data": "few"}]
)
def test_record_of_another_cell_is_refused(records_of: Make, planted: Plant, levels: dict[str, str]) -> None:
    records = records_of(planted(dynamic=0.03, specific=0.02, both=0.01))
    message = (
        f"record {cell_name(levels)}, seed 0, has levels that the plan lacks: must have one of each factor. "
        "kernel: constant, pixel; channels: grouped, every."
    )
    with pytest.raises(RecordError, match=f"^{message}$"):
        effects([*records, RunRecord(levels=levels, seed=0, status="failed")], PLAN)


def test_record_of_another_seed_or_metric_is_refused(records_of: Make, planted: Plant) -> None:
    record = records_of(planted(dynamic=0.03, specific=0.02, both=0.01))[0]
    name = "^record kernel=constant,channels=grouped, seed"
    with pytest.raises(RecordError, match=f"{name} 9, has a seed that the plan lacks: must be one of 0, 1, 2, 3, 4,"):
        effects([replace(record, seed=9)], PLAN)
    for metrics, listed in (({"loss": 1.0, "best_loss": 0.9}, "loss, best_loss"), ({}, "none")):
        with pytest.raises(RecordError, match=f"{name} 0, has metrics {listed}: must hold the outcome accuracy.$"):
            effects([replace(record, metrics=metrics)], PLAN)


def test_records_that_do_not_share_their_factors_are_refused() -> None:
    records = [RunRecord(levels=levels, seed=0, status="complete") for levels in ({"kernel": "pixel"}, {"data": "few"})]
    message = "record data=few, seed 0, has factors data, the first record has factors kernel: must be the same in all"
    with pytest.raises(RecordError, match=f"^{message} records.$"):
        effects(records)


def test_records_without_a_factor_that_varies_are_refused() -> None:
    bare, single = (RunRecord(levels=levels, seed=0, status="complete") for levels in ({}, {"kernel": "pixel"}))
    for records in ([], [bare], [single]):
        message = f"records has {len(records)} entries: must hold a factor with two or more levels."
        with pytest.raises(RecordError, match=f"^{message}$"):
            effects(records)


def test_plan_with_a_foreign_contrast_or_an_empty_hypothesis_is_refused() -> None:
    with pytest.raises(SpecError, match=r"^factor has 'colour': must be one of 'kernel', 'channels'.$"):
        effects([], replace(PLAN, family=(Difference("colour", "red", "blue"),)))
    with pytest.raises(SpecError, match=r"^hypothesis H9 has parts=\(\): must have one or more.$"):
        effects([], replace(PLAN, hypotheses=(Hypothesis("H9", "c", ()),)))
