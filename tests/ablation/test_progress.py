"""What a study shows while it runs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from dynops.ablation.designs import Levels
from dynops.ablation.plan import Plan
from dynops.ablation.progress import ROWS, Progress
from dynops.ablation.shared import InFolder
from dynops.ablation.store import RECORDS, write_study
from dynops.records import RunRecord, append_record

PLAN = Plan(name="p", question="q", factors=(Levels("cell", tuple("abcdefghijklmn")),), seeds=(0, 1))


def run(cell: str, seed: int, accuracy: float) -> RunRecord:
    return RunRecord(levels={"cell": cell}, seed=seed, status="complete", metrics={"accuracy": accuracy})


@pytest.fixture
def shown(tmp_path: Path) -> Callable[[Plan, list[RunRecord], list[RunRecord]], tuple[Progress, str]]:
    """Show some runs that were there before and some that came, on a terminal."""

    def show(plan: Plan, before: list[RunRecord], after: list[RunRecord]) -> tuple[Progress, str]:
        write_study(tmp_path, plan, before)
        progress = Progress(InFolder(tmp_path))
        for record in after:
            append_record(tmp_path / RECORDS, record)
        progress._console = Console(force_terminal=True, width=100, color_system=None)
        progress.refresh()
        with progress._console.capture() as captured:
            for each in progress._above():
                progress._console.print(each)
        return progress, captured.get()

    return show


def test_best_cells_come_first_with_their_means_and_best_runs(
    shown: Callable[[Plan, list[RunRecord], list[RunRecord]], tuple[Progress, str]],
) -> None:
    before = [run(cell, 0, 0.01 * place) for place, cell in enumerate("abcdefghijklmn")]
    progress, text = shown(PLAN, before, [run("a", 1, 0.5)])
    rows = [line.split() for line in text.splitlines() if line.strip().startswith("cell=")]
    assert rows[:2] == [["cell=a", "2", "0.2500", "0.5000"], ["cell=n", "1", "0.1300", "0.1300"]]
    assert len(rows) == ROWS
    assert "and 2 more" in text
    assert progress.done == 15


def test_best_run_is_the_smallest_where_less_is_better(
    shown: Callable[[Plan, list[RunRecord], list[RunRecord]], tuple[Progress, str]],
) -> None:
    plan = Plan(name="p", question="q", factors=PLAN.factors, seeds=(0, 1), higher_is_better=False)
    _, text = shown(plan, [run("a", 0, 0.3), run("b", 0, 0.25)], [run("a", 1, 0.1)])
    rows = [line.split() for line in text.splitlines() if line.strip().startswith("cell=")]
    assert rows == [["cell=a", "2", "0.2000", "0.1000"], ["cell=b", "1", "0.2500", "0.2500"]]
