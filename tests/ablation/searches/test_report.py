"""The report of a search: its text, its front, its figures, its importances, and its TensorBoard files."""

from collections.abc import Callable
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from dynops.ablation import Objective, SearchPlan, search_report
from dynops.ablation.designs import Levels
from dynops.ablation.searches.figures import front_figure, search_figures
from dynops.ablation.searches.importance import importance
from dynops.ablation.searches.plan import Numbers
from dynops.ablation.searches.trials import front_of, trials_of
from dynops.ablation.store import write_study
from dynops.errors import StudyError
from dynops.records import RunRecord

KERNELS, SIZES, WIDTHS = ("static", "pixel", "mixture"), ("3", "5", "7"), ("16", "32")
BOTH = (Objective("accuracy", "maximise", unit="points"), Objective("parameters", "minimise"))


def plan_of(**changes: Any) -> SearchPlan:
    settings: dict[str, Any] = {
        "name": "search",
        "question": "What is worth its cost?",
        "factors": (Levels("kernel", KERNELS), Levels("size", SIZES), Levels("width", WIDTHS)),
        "objectives": BOTH,
        "trials": 20,
    }
    return SearchPlan(**(settings | changes))


def records_of(outcome: Callable[[int, int, int], float]) -> list[RunRecord]:
    """A result for every point, in an order that shows no pattern."""
    points = list(product(range(3), range(3), range(2)))
    return [
        RunRecord(
            levels={"kernel": KERNELS[a], "size": SIZES[b], "width": WIDTHS[c]},
            seed=0,
            status="complete",
            metrics={"accuracy": outcome(a, b, c)},
            history=({"epoch": 1.0, "loss": 1.0, "accuracy": 0.5},),
            parameters=int(WIDTHS[c]) * int(SIZES[b]) ** 2,
            macs=1000 * (1 + b + 3 * c),
            device="a device",
            versions={"torch": "2"},
            commit="abc",
        )
        for a, b, c in (points[place] for place in np.random.default_rng(0).permutation(len(points)))
    ]


def planted(a: int, b: int, c: int) -> float:
    return 0.5 + 0.05 * (a == 1) + 0.01 * b + 0.1 * c


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ended = [
        RunRecord(levels={"kernel": "static", "size": "3", "width": "32"}, seed=0, status=status, reason=reason)
        for status, reason in (("failed", "Traceback\n  ...\nValueError: planted"), ("pruned", "after epoch 2 ..."))
    ]
    records = records_of(planted)
    records[4] = RunRecord(**(vars(records[4]) | {"status": "diverged", "reason": "loss was nan"}))
    ended[0] = RunRecord(**(vars(ended[0]) | {"levels": dict(records[-1].levels)}))
    ended[1] = RunRecord(**(vars(ended[1]) | {"levels": dict(records[-2].levels)}))
    write_study(tmp_path, plan_of(), [*records[:-2], *ended])
    return tmp_path


def test_the_report_says_first_that_it_is_exploratory(folder: Path) -> None:
    text = search_report(folder).text
    title, question, summary, _, worth, *_ = text.split("\n\n")
    assert title == "# search"
    assert question == "What is worth its cost?"
    assert summary == "**exploratory search, not an ablation** · 16 results of 18 trials · 4 on the front"
    assert worth.startswith("**Exploratory search, not an ablation.**")
    assert "flattered by chance" in worth
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        "## What this is worth",
        "## Setup",
        "## Front, exploratory",
        "## Best accuracy, exploratory",
        "## Importance of the factors, exploratory",
        "## Failed, diverged and pruned trials",
        "## Files",
    ]
    assert "without interactions, no interval, not an ablation result" in text


def test_the_report_counts_and_explains_what_is_no_result(folder: Path) -> None:
    text = search_report(folder).text
    assert "n = 18 trials of 20 planned (15 complete, 1 diverged, 1 failed, 1 pruned), of 18 points, each" in text
    assert ": `ValueError: planted`" in text
    assert ": `after epoch 2 ...`" in text
    assert ": `loss was nan`" in text
    assert "- Device: a device\n" in text
    assert "- Commit: abc\n" in text


def test_equal_records_give_an_equal_report(folder: Path) -> None:
    first = search_report(folder)
    before = [(folder / name).read_bytes() for name in ("report.md", "report.html")]
    assert search_report(folder).text == first.text
    assert [(folder / name).read_bytes() for name in ("report.md", "report.html")] == before
    assert not list(folder.glob(".report-*"))
    assert set(first.figures) == {"front", "history", "importance"}
    assert all(path.is_file() and f"({path.relative_to(folder)})" in first.text for path in first.figures.values())


def test_the_front_has_what_nothing_dominates() -> None:
    plan, records = plan_of(), records_of(planted)
    found = front_of(plan, trials_of(plan, records))
    assert {tuple(trial.levels.values()) for trial in found} == {
        ("pixel", "3", "16"),
        ("pixel", "3", "32"),
        ("pixel", "5", "32"),
        ("pixel", "7", "32"),
    }


def test_equal_trials_share_the_front() -> None:
    plan, records = plan_of(), records_of(lambda a, b, c: 0.5)
    assert len(front_of(plan, trials_of(plan, records))) == 3


def test_less_is_better_where_it_is_minimised() -> None:
    plan = plan_of(objectives=(Objective("accuracy", "minimise"),))
    (best,) = front_of(plan, trials_of(plan, records_of(lambda a, b, c: a + b + c + 0.1)))
    assert best.levels == {"kernel": "static", "size": "3", "width": "16"}


def test_importance_finds_the_planted_shares() -> None:
    plan = plan_of()
    trials = trials_of(plan, records_of(planted))
    shares = importance(plan, trials, 0)
    assert shares is not None
    truth = {"kernel": 0.05**2 * 2 / 9, "size": 0.01**2 * 2 / 3, "width": 0.1**2 / 4}
    whole = sum(truth.values())
    assert list(shares) == ["kernel", "size", "width"]
    assert shares == pytest.approx({name: share / whole for name, share in truth.items()}, abs=0.06)
    assert importance(plan, trials, 0) == shares


def test_importance_leaves_out_interactions() -> None:
    plan = plan_of()
    trials = trials_of(plan, records_of(lambda a, b, c: 0.5 + 0.1 * (2 * c - 1) * (a - 1)))
    shares = importance(plan, trials, 0)
    assert shares is not None
    assert sum(shares.values()) < 0.5


def test_importance_needs_ten_results_that_differ() -> None:
    plan = plan_of()
    assert importance(plan, trials_of(plan, records_of(planted)[:9]), 0) is None
    assert importance(plan, trials_of(plan, records_of(lambda a, b, c: 0.5)), 0) is None


def test_numbers_have_importance_and_three_digits(tmp_path: Path) -> None:
    rates = np.random.default_rng(0).uniform(0.0, 1.0, 30)
    plan = plan_of(factors=(Numbers("rate", low=0.0, high=1.0), Levels("kernel", KERNELS)), objectives=BOTH[:1])
    records = [
        RunRecord(
            levels={"rate": repr(float(rate)), "kernel": KERNELS[place % 3]},
            seed=0,
            status="complete",
            metrics={"accuracy": float(rate)},
        )
        for place, rate in enumerate(rates)
    ]
    shares = importance(plan, trials_of(plan, records), 0)
    assert shares is not None
    assert shares["rate"] > 0.9
    write_study(tmp_path, plan, records)
    text = search_report(tmp_path).text
    assert f"| {max(rates):.3g} | " in text
    assert "## Best accuracy, exploratory" in text
    assert "## Front" not in text
    assert "of infinitely many points" in text


@pytest.mark.parametrize("crowd", [1, 2])
def test_no_number_hides_another(crowd: int) -> None:
    plan = plan_of(objectives=(*BOTH, Objective("macs", "minimise")))
    figure = front_figure(plan, trials_of(plan, records_of(lambda a, b, c: planted(a, b, c) / crowd)))
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = [Text.get_window_extent(text) for text in axes.texts]
        assert len(boxes) >= 4
        assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]


def test_figures_say_that_they_are_exploratory() -> None:
    plan = plan_of()
    trials = trials_of(plan, records_of(planted))
    shares = importance(plan, trials, 0)
    assert shares is not None
    figures = search_figures(plan, trials, {"accuracy": shares})
    assert set(figures) == {"front", "history", "importance"}
    assert all(figure.get_suptitle().startswith("Exploratory") for figure in figures.values())


def test_tensorboard_has_a_row_for_each_point(folder: Path) -> None:
    search_report(folder)
    root = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0, "tensors": 0}).Reload()
    assert set(root.Tags()["images"]) == {"search/front", "search/history", "search/importance"}
    texts = [tag for tag in root.Tags()["tensors"] if tag.startswith("report/")]
    assert texts[0] == "report/01 what this is worth/text_summary"
    assert len(texts) == 7
    content = root.summary_metadata[metadata.EXPERIMENT_TAG].plugin_data.content
    experiment = HParamsPluginData.FromString(content).experiment
    assert [each.name for each in experiment.hparam_infos] == ["kernel", "size", "width"]
    assert len(list((folder / "tensorboard").glob("kernel=*/seed=0"))) == 18


def test_a_search_without_a_result_has_no_report(tmp_path: Path) -> None:
    write_study(tmp_path, plan_of(), [])
    with pytest.raises(StudyError, match="has 0 results and 0 trials: a report needs one result or more"):
        search_report(tmp_path)
