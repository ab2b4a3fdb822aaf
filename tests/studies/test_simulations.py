"""The simulations judge what the product computes, run to their end, and say what they found."""

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynops.ablation.effects import effects
from dynops.errors import SpecError
from dynops.records import RunRecord
from studies.simulations import coverage, errors, page, regimes, study
from studies.simulations.planted import (
    CELLS,
    DRAWS,
    FAMILY,
    INTERVALS,
    LEVEL,
    SEEDS,
    cells_with,
    generator_of,
    noise,
    plan,
    rows,
)

RESULTS = Path(__file__).resolve().parents[2] / "studies" / "results" / "simulations"


@pytest.fixture(scope="module", autouse=True)
def _cheap_garbage_collection() -> Iterator[None]:
    # statsmodels collects garbage in every call of multipletests; what the imports left need not be looked at again.
    gc.freeze()
    yield
    gc.unfreeze()


def kept() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / "simulations.json").read_text())
    return found


def records(outcomes: np.ndarray) -> list[RunRecord]:
    """Make records of a table of outcomes, `n c`."""
    return [
        RunRecord(
            levels=dict(pair.split("=", 1) for pair in cell.split(",")),
            seed=seed,
            status="complete",
            metrics={"accuracy": float(outcomes[seed, place])},
        )
        for seed in range(len(outcomes))
        for place, cell in enumerate(CELLS)
    ]


@pytest.mark.parametrize("edge", errors.EDGES)
def test_what_is_simulated_is_what_a_study_computes(edge: float) -> None:
    for seed in range(3):
        outcomes = errors.edge_cells(edge) + noise("seed x factor", 1, 6, np.random.default_rng(seed))
        stated = plan(6, margin=0.8, edge=edge)
        found = effects(records(outcomes[0]), stated)
        by_contrast = {row.contrast: row for row in found.effects if row.in_family}
        shown = [by_contrast[contrast] for contrast in FAMILY]
        p, p_equivalence = errors.family(outcomes, 0.8)
        assert [row.p_holm for row in shown] == pytest.approx(list(p[0]))
        assert [row.p_equivalence for row in shown] == pytest.approx(list(p_equivalence[0]))
        supported, refuted = errors.settled(outcomes, stated)
        assert [verdict.p_supported for verdict in found.verdicts] == pytest.approx(list(supported[0]))
        assert [verdict.p_refuted for verdict in found.verdicts] == pytest.approx(list(refuted[0]))


def test_intervals_that_are_simulated_are_those_of_contrasts_that_a_study_shows() -> None:
    outcomes = noise("normal", 1, 5, np.random.default_rng(0))[0]
    found = effects(records(outcomes), plan(5, margin=0.0, edge=0.0))
    by_seed = [list(effect.by_seed.values()) for effect in found.effects]
    for kind in ("main", "simple", "interaction"):
        values = outcomes @ INTERVALS[kind]
        assert any(each == pytest.approx(list(values)) for each in by_seed)


def test_planted_effects_are_those_of_the_cells() -> None:
    effects_planted = np.arange(9.0) - 4
    assert rows(FAMILY) @ cells_with(effects_planted) == pytest.approx(effects_planted)
    weights = rows(FAMILY) @ errors.edge_cells(3.0)
    assert weights == pytest.approx([3, 0, 0, 0, 1, 0, 0, 0, 0])


@pytest.mark.parametrize("name", DRAWS)
def test_noise_has_mean_0_and_the_deviation_that_it_says(name: str) -> None:
    drawn = noise(name, 4000, 4, np.random.default_rng(0))
    contrast = drawn @ INTERVALS["main"]
    expected = 1 / 3 + DRAWS[name][1] ** 2  # of twelve runs, and of the seed's own effect
    assert contrast.mean() == pytest.approx(0, abs=0.04)
    assert contrast.var() == pytest.approx(expected, rel=0.1)


def test_a_few_simulations_run_to_their_end_and_go_on_where_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {name: measure for name, measure in study.points(30).items() if "n=8" not in name and "n=20" not in name}
    few = dict(list(points.items())[::3])
    monkeypatch.setattr(study, "points", lambda simulations: few)
    study.main(simulations=30, folder=tmp_path)
    first = (tmp_path / "simulations.json").read_text()
    assert set(json.loads(first)["points"]) == set(few)
    assert {"scipy", "statsmodels", "torch"} <= set(json.loads(first)["versions"])
    monkeypatch.setattr(study, "points", lambda simulations: dict.fromkeys(few, pytest.fail))
    study.main(simulations=30, folder=tmp_path)
    assert (tmp_path / "simulations.json").read_text() == first
    assert (tmp_path / "simulations.md").read_text() == page.markdown(json.loads(first))
    assert (tmp_path / "coverage.png").stat().st_size > 10_000


def test_every_point_has_numbers_that_do_not_depend_on_the_others() -> None:
    for what, measure in study.BY_NOISE.items():
        name = f"{what}, normal, n=5"
        one, same = (measure("normal", 5, 20, generator_of(name)) for _ in range(2))
        assert one == same
        assert all(np.isfinite(each) for each in one.values())


@pytest.mark.parametrize("name", DRAWS)
def test_intervals_hold_planted_contrasts(name: str) -> None:
    found = coverage.contrasts(name, 5, 2000, np.random.default_rng(0))
    assert all(0.91 < each < 0.98 for each in found.values()), found


def test_verdicts_are_wrong_no_more_often_than_they_say() -> None:
    ceiling = LEVEL + 4 * (LEVEL * (1 - LEVEL) / 2000) ** 0.5
    for measure in (errors.differs, errors.equivalent, errors.hypotheses):
        found = measure("normal", 5, 2000, np.random.default_rng(0))
        assert max(found.values()) < ceiling, found


def test_mixed_intervals_with_normal_quantiles_miss_and_those_of_dynops_do_not() -> None:
    found = regimes.pooled("normal", 3, 2.0, 5, 2000, np.random.default_rng(0))
    assert found["mixed, normal quantile"] < 0.86
    assert found["mixed"] > 0.935
    assert found["t over regimes"] == pytest.approx(0.95, abs=0.02)


def test_too_few_simulations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"^simulations has 1: must be an integer of at least 2\.$"):
        study.main(simulations=1, folder=tmp_path)


def test_kept_results_are_those_of_the_page() -> None:
    saved = kept()
    assert saved["device"]
    assert saved["commit"]
    assert set(saved["points"]) == set(study.points(saved["settings"]["simulations"]))
    assert (RESULTS / "simulations.md").read_text() == page.markdown(saved)
    assert (RESULTS / "coverage.png").exists()


def test_kept_intervals_of_normal_contrasts_hold_the_truth_in_93_to_97_percent() -> None:
    saved = kept()
    for noise_name in ("normal", "seed x factor"):
        for group, names in page.COVERAGE.items():
            for name in set(names) - {"sign change"}:
                for seeds in SEEDS:
                    found = page.value(saved, f"{group}, {noise_name}, n={seeds}", name)
                    assert found is None or 0.93 < found < 0.97
    for seeds in SEEDS:
        assert (page.value(saved, f"scales, normal, n={seeds}", "sign change") or 0) > 0.94


def test_kept_verdicts_of_normal_outcomes_are_wrong_in_at_most_the_level() -> None:
    saved = kept()
    ceiling = LEVEL + 4 * (LEVEL * (1 - LEVEL) / saved["settings"]["simulations"]) ** 0.5
    for noise_name in ("normal", "seed x factor"):
        for group, names in page.ERRORS.items():
            for name in names:
                for seeds in SEEDS:
                    assert (page.value(saved, f"{group}, {noise_name}, n={seeds}", name) or 0) < ceiling
