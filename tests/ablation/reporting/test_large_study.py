"""Of a study with very many cells or seeds a report shows what matters, and says what it leaves out."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from dynops.ablation.claims import Difference
from dynops.ablation.designs import Levels
from dynops.ablation.effects import Effects, effects
from dynops.ablation.plan import Plan
from dynops.ablation.reporting import results, tables
from dynops.ablation.reporting.cost_figure import BEST, costs
from dynops.ablation.reporting.curve_figures import FEW, curves
from dynops.ablation.reporting.document import to_markdown
from dynops.ablation.reporting.drawing import MOST_CELLS
from dynops.ablation.reporting.figures import all_figures
from dynops.ablation.reporting.margins import evidence, mean_curves
from dynops.ablation.reporting.report_text import report_document
from dynops.ablation.reporting.results import shown_seeds
from dynops.ablation.reporting.setup_text import MOST_LINES
from dynops.ablation.reporting.tensorboard import write_any_run, write_run
from dynops.records import RunRecord

WIDE = Levels("wide", tuple(str(level) for level in range(17)))
DEEP = Levels("deep", tuple(str(level) for level in range(6)))
PLAN = Plan(
    name="large",
    question="Which cell?",
    factors=(WIDE, DEEP),
    seeds=(0, 1, 2),
    family=(Difference("wide", "1", "0"),),
)


def outcome_of(levels: dict[str, str], seed: int) -> float:
    """An outcome that is the better the later the cell comes, more than any seed."""
    return 0.5 + 0.01 * int(levels["wide"]) + 0.001 * int(levels["deep"]) + 0.0001 * seed


def runs_of(plan: Plan) -> list[RunRecord]:
    found = []
    for seed in plan.seeds:
        for levels in plan.cell_levels():
            share = outcome_of(levels, seed)
            epochs = tuple({"epoch": epoch, "train_loss": 1.0, "accuracy": share} for epoch in (1, 2))
            metrics = {"accuracy": share}
            found.append(
                RunRecord(levels=levels, seed=seed, status="complete", metrics=metrics, history=epochs, parameters=10)
            )
    return found


@pytest.fixture(scope="module")
def runs() -> list[RunRecord]:
    return runs_of(PLAN)


@pytest.fixture(scope="module")
def found(runs: list[RunRecord]) -> Effects:
    return effects(runs, PLAN)


def text_of(plan: Plan, records: list[RunRecord]) -> str:
    return to_markdown(report_document(plan, records, effects(records, plan), {}))


def test_curves_of_very_many_cells_are_those_that_end_best(runs: list[RunRecord]) -> None:
    figure = curves(PLAN, runs)
    assert figure is not None
    assert [len(axes.lines) for axes in figure.axes] == [FEW] * 2
    assert "the 8 of 102 cells whose curves end best" in figure.get_suptitle()
    drawn = {line.get_ydata()[-1] for line in figure.axes[1].lines}
    best = sorted(PLAN.cell_levels(), key=lambda levels: outcome_of(levels, 0))[-FEW:]
    means = [100 * np.mean([outcome_of(levels, seed) for seed in PLAN.seeds]) for levels in best]
    assert sorted(drawn) == pytest.approx(means)


def test_curves_of_an_outcome_that_should_be_small_are_the_smallest(runs: list[RunRecord]) -> None:
    figure = curves(replace(PLAN, higher_is_better=False), runs)
    assert figure is not None
    assert max(line.get_ydata()[-1] for line in figure.axes[1].lines) < 100 * outcome_of({"wide": "1", "deep": "3"}, 0)


def test_curves_of_an_outcome_that_no_epoch_has_are_those_of_the_least_loss(runs: list[RunRecord]) -> None:
    losses = [
        replace(run, metrics={"f1": 0.5}, history=({"epoch": 1, "train_loss": run.metrics["accuracy"]},))
        for run in runs
    ]
    figure = curves(replace(PLAN, outcome="f1"), losses)
    assert figure is not None
    (axes,) = figure.axes
    assert max(line.get_ydata()[-1] for line in axes.lines) < outcome_of({"wide": "1", "deep": "3"}, 0)


def test_costs_of_very_many_cells_are_those_of_the_best_and_of_the_front(runs: list[RunRecord]) -> None:
    cheap = [replace(run, parameters=1) if run.cell == "wide=0,deep=0" else run for run in runs]
    made = effects(cheap, PLAN)
    figure = costs(PLAN, made)
    assert f"of 102 cells the {BEST} best, and those on the front" in figure.get_suptitle()
    points = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    assert len(points) == BEST + 1
    assert sorted(line.get_xdata()[0] for line in points)[:2] == [1, 10]


def test_kernels_are_drawn_of_a_hundred_cells_at_most(runs: list[RunRecord], found: Effects) -> None:
    image = [[[0.0, 1.0], [1.0, 0.0]]]
    images = {"inputs": [image], "kernels": {"layer": image}}
    first = [replace(run, images=images) if run.seed == 0 else run for run in runs]
    tags = [tag for tag in all_figures(PLAN, first, found) if tag.startswith("kernels/")]
    assert len(tags) == MOST_CELLS


def test_very_many_cells_have_no_mean_curves_of_their_own(runs: list[RunRecord]) -> None:
    groups = {chart.category for chart in mean_curves(PLAN, runs, 0.05)}
    assert groups == {"learning curves by wide", "learning curves by deep"}


def test_tables_list_the_rows_that_matter_and_say_so(found: Effects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_ROWS", 4)
    table = tables.cell_table(found, PLAN)
    assert [row[0] for row in table.rows] == [f"wide=16, deep={level}" for level in (2, 3, 4, 5)]
    assert table.note.endswith(" Listed are 4 of 102 cells, the best; `effects.json` has all.")
    worst = tables.cell_table(found, replace(PLAN, higher_is_better=False))
    assert [row[0] for row in worst.rows] == [f"wide=0, deep={level}" for level in range(4)]
    confirmatory, exploratory = tables.effect_tables(found, PLAN)
    assert len(confirmatory.rows) == 1
    assert "Listed" not in confirmatory.note
    outside = [effect for effect in found.effects if not effect.in_family]
    assert len(exploratory.rows) == 4
    assert f"Listed are 4 of {len(outside):,} effects, those of the smallest p" in exploratory.note


def test_losses_beyond_a_hundred_are_counted(runs: list[RunRecord]) -> None:
    text = text_of(PLAN, [run for run in runs if run.seed == 0 and run.levels["wide"] == "0"])
    assert text.count("- not run: ") == MOST_LINES
    assert "- and 2 lines more like these" in text
    plan = replace(PLAN, seeds=tuple(range(203)))
    text = text_of(plan, runs)
    assert "- not run: wide=0,deep=0, seeds 3, 4, " in text
    assert ", 101, 102 and 100 more\n" in text


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    """What is shown of a plan is remembered, whatever a test sets."""
    shown_seeds.cache_clear()
    yield
    shown_seeds.cache_clear()


def test_tensorboard_has_runs_of_the_first_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MOST_RUNS", 250)
    plan = replace(PLAN, name="another")
    assert shown_seeds(plan) == {0, 1}
    runs = runs_of(plan)
    assert write_run(tmp_path, plan, runs[0]).exists()
    assert not write_run(tmp_path, plan, runs[-1]).exists()
    assert write_any_run(tmp_path, plan, runs[-1]).exists()
    said = "Of 3 seeds the first 2 seeds have runs of their own there, over which its page of cells averages."
    assert said in text_of(plan, runs)
    monkeypatch.undo()
    shown_seeds.cache_clear()
    assert said.partition(",")[2] not in text_of(plan, runs)


def test_more_cells_than_runs_leave_the_first_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MOST_RUNS", 50)
    assert shown_seeds(replace(PLAN, name="a third")) == {0}


def test_evidence_looks_at_each_seed_at_first_and_then_at_fewer() -> None:
    plan = Plan(name="n", question="q", factors=(Levels("deep", ("0", "1")),), seeds=tuple(range(1000)))
    generator = np.random.default_rng(0)
    runs = [
        RunRecord(levels=levels, seed=seed, status="complete", metrics={"accuracy": generator.normal()})
        for seed in plan.seeds
        for levels in plan.cell_levels()
    ]
    (effect,) = effects(runs, plan).effects
    looks = list(evidence(effect, plan, 0.05))
    assert looks[:98] == list(range(3, 101))
    assert looks[-1] == 1000
    assert len(looks) < 250
    assert max(later / sooner for sooner, later in pairwise(looks[98:])) < 1.021
