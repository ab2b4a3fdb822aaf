"""Effects over regimes, how cells stand, and what factors explain, of planted records."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dynops.ablation.claims import Difference, Exceeds, Hypothesis, Interaction, Slope, Within
from dynops.ablation.designs import Fraction, Levels
from dynops.ablation.effects import Effects, effects
from dynops.ablation.plan import Plan
from dynops.records import RunRecord, cell_name

DATA = Levels("data", ("few", "some", "all"), scale=(0.05, 0.2, 1.0))
KERNEL = Levels("kernel", ("constant", "pixel"))
CHANNELS = Levels("channels", ("every", "grouped"))
SHARING = Difference("channels", "grouped", "every")
PLAN = Plan(
    name="p",
    question="q",
    factors=(DATA, KERNEL, CHANNELS),
    seeds=tuple(range(8)),
    regimes=("data",),
    family=(SHARING, Interaction(Difference("kernel", "pixel", "constant"), SHARING)),
    hypotheses=(
        Hypothesis("H3", "sharing is worth less with more data", (Exceeds((Slope(SHARING, "data"),), margin=-0.001),)),
        Hypothesis("E", "a pixel changes nothing", (Within(Difference("kernel", "pixel", "constant"), margin=0.01),)),
    ),
)
GAIN = {"few": 0.06, "some": 0.02, "all": -0.04}
"""What sharing adds with so much data: it changes its sign between `some` and `all`."""


def planted(noise: float = 0.001, plan: Plan = PLAN, failing: str = "") -> list[RunRecord]:
    generator = np.random.default_rng(0)
    records = []
    for seed in plan.seeds:
        for levels in plan.cell_levels():
            outcome = 0.7 + 0.01 * seed + noise * generator.normal()
            outcome += GAIN.get(levels.get("data", ""), 0.02) * (levels.get("channels") == "grouped")
            failed = seed == 0 and cell_name(levels) == failing
            records.append(
                RunRecord(
                    levels=levels,
                    seed=seed,
                    status="failed" if failed else "complete",
                    metrics={} if failed else {"accuracy": outcome},
                    parameters=50 if levels.get("channels") == "grouped" else 100,
                    macs=1000,
                )
            )
    return records


@pytest.fixture(scope="module")
def found() -> Effects:
    return effects(planted(), PLAN)


def test_a_profile_has_the_effect_in_each_regime(found: Effects) -> None:
    sharing, interaction = found.profiles
    assert (sharing.name, sharing.regime, sharing.levels) == ("channels: grouped - every", "data", DATA.levels)
    for level, effect in zip(sharing.levels, sharing.at, strict=True):
        assert effect.name == f"channels: grouped - every at data={level}"
        assert effect.estimate == pytest.approx(GAIN[level], abs=0.003)
    assert interaction.name.startswith("kernel x channels")
    assert [effect.verdict for effect in interaction.at] == ["undecided"] * 3


def test_a_profile_says_how_the_effect_grows_and_where_it_changes_its_sign(found: Effects) -> None:
    sharing = found.profiles[0]
    assert sharing.slope is not None
    places = np.log2(DATA.scale)
    assert sharing.slope.estimate == pytest.approx(np.polyfit(places, list(GAIN.values()), 1)[0], abs=0.001)
    assert sharing.slope.verdict == "differs"
    change = sharing.sign_change
    assert change is not None
    assert change.crossings == 1
    truth = 2 ** (places[1] + (places[2] - places[1]) * 0.02 / 0.06)
    assert change.estimate == pytest.approx(truth, rel=0.1)
    assert change.low is not None
    assert change.high is not None
    assert 0.97 * truth < change.low < change.estimate < change.high < 1.03 * truth


def test_a_profile_is_pooled_over_regimes(found: Effects) -> None:
    pooled = found.profiles[0].pooled
    assert pooled is not None
    assert pooled.mean == pytest.approx(np.mean(list(GAIN.values())), abs=0.002)
    assert pooled.between == pytest.approx(np.std(list(GAIN.values()), ddof=1), rel=0.2)
    assert pooled.interval is not None
    assert pooled.interval[0] < 0 < pooled.interval[1]


def test_a_regime_without_a_scale_has_neither_slope_nor_sign_change() -> None:
    plan = replace(PLAN, factors=(replace(DATA, scale=()), KERNEL, CHANNELS), hypotheses=())
    sharing = effects(planted(), plan).profiles[0]
    assert sharing.slope is None
    assert sharing.sign_change is None
    assert sharing.pooled is not None


def test_hypotheses_on_slopes_and_on_nothing_are_settled(found: Effects) -> None:
    slope, nothing = found.verdicts
    assert slope.verdict == "refuted"
    assert nothing.verdict == "supported"
    assert [part.name for part in nothing.parts] == [
        "0.01 - (kernel: pixel - constant)",
        "0.01 + (kernel: pixel - constant)",
    ]


@pytest.mark.parametrize(("effect", "verdict"), [(0.0, "supported"), (0.05, "refuted"), (0.0101, "undecided")])
def test_a_change_that_costs_nothing_is_told_from_one_that_costs(effect: float, verdict: str) -> None:
    plan = replace(PLAN, hypotheses=PLAN.hypotheses[1:])
    records = [
        replace(each, metrics={"accuracy": each.metrics["accuracy"] + effect * (each.levels["kernel"] == "pixel")})
        for each in planted()
    ]
    (found,) = effects(records, plan).verdicts
    assert found.verdict == verdict


def test_cells_are_ranked_and_set_against_the_first(found: Effects) -> None:
    by_name = {each.cell: each for each in found.standings}
    best = by_name["data=few,kernel=constant,channels=grouped"]
    assert best.mean_rank < 3
    assert best.on_front
    assert best.beats_first is not None
    assert best.beats_first.probability == 1
    assert found.standings[0].beats_first is None
    assert sum(each.mean_rank for each in found.standings) == pytest.approx(12 * 13 / 2)
    assert found.ranks_p is not None
    assert found.ranks_p < 1e-6
    assert not by_name["data=all,kernel=pixel,channels=every"].on_front


def test_variance_is_shared_out_among_factors_and_their_interactions(found: Effects) -> None:
    shares = {each.factors: each.share for each in found.variance}
    assert sum(shares.values()) == pytest.approx(1)
    assert found.variance[0].factors == ("data", "channels")
    grid = np.array([[0.0, GAIN[level]] for level in DATA.levels])
    rest = grid - grid.mean(0) - grid.mean(1, keepdims=True) + grid.mean()
    assert shares["data", "channels"] == pytest.approx((rest**2).mean() / grid.var(), abs=0.02)
    assert shares["kernel",] < 0.01


def test_a_seed_that_lacks_a_cell_is_left_out_of_what_compares_all() -> None:
    found = effects(planted(failing="data=few,kernel=pixel,channels=every"), PLAN)
    assert found.standings[1].beats_first is not None
    assert found.standings[1].beats_first.blocks == 7
    assert [len(effect.by_seed) for effect in found.profiles[0].at] == [7, 8, 8]


def test_records_without_a_whole_seed_have_effects_and_no_standings() -> None:
    records = [each for each in planted() if each.levels["data"] != "all"]
    found = effects(records, replace(PLAN, hypotheses=()))
    assert found.standings == ()
    assert found.variance == ()
    assert found.ranks_p is None
    assert found.profiles[0].sign_change is None
    assert found.profiles[0].at[0].estimate is not None


def test_a_fraction_says_what_else_an_estimate_may_be() -> None:
    factors = tuple(Levels(name, ("off", "on")) for name in "abcd")
    pair = Interaction(Difference("a", "on", "off"), Difference("b", "on", "off"))
    plan = replace(PLAN, factors=factors, regimes=(), design=Fraction(), hypotheses=(), family=(pair,))
    found = effects(planted(plan=plan), plan)
    (row,) = [effect for effect in found.effects if effect.in_family]
    assert row.aliases == ("c x d: (on - off) x (on - off)",)
    assert found.variance == ()


def test_effects_have_a_bootstrap_interval_beside_that_of_t(found: Effects) -> None:
    for effect in found.effects:
        assert effect.robust is not None
        assert effect.interval is not None
        assert effect.robust[0] < effect.estimate < effect.robust[1]  # type: ignore[operator]
    few: Callable[[Effects], bool] = lambda each: all(effect.robust is None for effect in each.effects)  # noqa: E731
    assert few(effects([each for each in planted() if each.seed < 4], PLAN))


def test_what_is_found_is_plain_data(found: Effects) -> None:
    plain = found.to_plain()
    assert plain["variance"][0]["factors"] == ["data", "channels"]
    assert plain["profiles"][0]["sign_change"]["reach"] == "closed"
    assert plain["standings"][0]["beats_first"] is None
