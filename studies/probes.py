"""What can a kernel know? Operators on selector-shift probes, whose best mean square error theory gives.

The answer is always a neighbour's value; a probe decides where the selector lives that says which of the four. A kernel
that cannot know it has the floor 1 - 1/4 = 0.75, one that knows it goes to 0. The table sets what was measured beside
what theory says.

    python -m studies.probes
    python -m studies.probes --group attention
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from dynops.ablation import Factor, Job, Study, report
from dynops.cli import command
from dynops.data import SelectorShift
from dynops.errors import SpecError
from dynops.records import RunRecord, write_atomically
from dynops.specs import one_of
from dynops.training import Experiment, Recipe
from studies.probe_operators import FLOOR, GROUPS, SUBJECTS, TASKS, Subject
from studies.running import execute
from studies.setting import Conditions

TOLERANCE = 0.05


def study(
    steps: int,
    seeds: int,
    run: Callable[[Job], RunRecord],
    operators: Sequence[str] = tuple(GROUPS["axes"]),
    tasks: Sequence[str] = TASKS,
    name: str = "probes",
) -> Study:
    """Return the study: every operator on every task."""
    batch_size, epochs = 32, 2
    recipe = Recipe(
        epochs=epochs, batch_size=batch_size, learning_rate=1e-2, weight_decay=0.0, clip=None, label_smoothing=0.0
    )
    data = SelectorShift(task=tasks[0], train=steps * batch_size // epochs)
    base = Experiment(network=SUBJECTS[operators[0]].network, data=data, recipe=recipe)
    return Study(
        name=name,
        question="Which operator can know which neighbour is the answer?",
        base=base,
        factors=(
            Factor("task", {task: _with_task(task) for task in tasks}),
            Factor("operator", {each: _with_subject(SUBJECTS[each]) for each in operators}),
        ),
        seeds=range(seeds),
        run=run,
        outcome="loss",
        unit="raw",
        higher_is_better=False,
        margin=TOLERANCE,
    )


def theory(operator: str, task: str) -> float | None:
    """Return the best mean square error of an operator on a task; None where theory is silent."""
    return SUBJECTS[operator].best.get(task, FLOOR)


def table(records: Sequence[RunRecord]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows: mean error by operator and task, `(theory)` behind it where the two differ.

    Raises:
        SpecError: there is no result.
    """
    accepted = [record for record in records if record.accepted]
    if not accepted:
        raise SpecError(f"records has {len(records)} records: must hold a result. The study's report says what failed.")
    tasks = list(dict.fromkeys(record.levels["task"] for record in accepted))
    rows = []
    for operator in dict.fromkeys(record.levels["operator"] for record in accepted):
        own = [record for record in accepted if record.levels["operator"] == operator]
        cells = []
        for task in tasks:
            losses = [record.metrics["loss"] for record in own if record.levels["task"] == task]
            cells.append(_shown(fmean(losses), theory(operator, task)) if losses else "-")
        rows.append([operator, str(min(record.parameters for record in own)), *cells])
    return ["operator", "parameters", *tasks], rows


def made(steps: int, seeds: int, group: str, accelerator: str = "auto") -> Study:
    """Make the study of a group of operators from plain values, here or in another process."""
    operators = tuple(GROUPS[group])
    found = study(steps, seeds, Conditions(accelerator=accelerator).run, operators, name=_name(group))
    for cell in found.cells()[: len(operators)]:  # all operators on one task
        cell.check(0, accelerator=accelerator)
    return found


def main(
    seeds: int = 2,
    steps: int = 800,
    group: str = "axes",
    folder: Path | None = None,
    accelerator: str = "auto",
    **running: Any,
) -> None:
    """Run the probes and print the table; started again, it goes on where it was.

    Args:
        seeds: number of blocks; each operator learns each task once with each.
        steps: training steps of each run, an even number.
        group: which operators: `axes`, the parts one at a time, or a group of the zoo.
        folder: where records and report go; runs/probes, or runs/probes-GROUP, by default.
        accelerator: `cpu`, `cuda` or `mps`; `auto` takes the best one of this machine.
        running: by whom; options of `studies.running.execute`.
    """
    if steps < 2 or steps % 2:
        raise SpecError(f"steps has {steps}: must be an even number of at least 2.")
    one_of("group", group, tuple(GROUPS))
    folder = folder or Path("runs") / _name(group)
    records = execute(partial(made, steps, seeds, group, accelerator), folder, **running)
    head, rows = table(records)
    console = Console()
    title = f"Mean square error over {seeds} seeds; (theory) where it differs by {TOLERANCE} or more"
    shown = Table(title=title, box=SIMPLE_HEAD, padding=0)
    for column in head:
        shown.add_column(column, overflow="fold", no_wrap=column == "operator")
    for row in rows:
        shown.add_row(*row)
    console.print(shown)
    lines = [head, ["---"] * len(head), *rows]
    write_atomically(folder / "probes.md", "".join(f"| {' | '.join(line)} |\n" for line in lines))
    report(folder)
    console.print(f"Table: {folder / 'probes.md'}. Report: {folder / 'report.md'}", highlight=False, soft_wrap=True)


def _name(group: str) -> str:
    return "probes" if group == "axes" else f"probes-{group}"


def _shown(loss: float, expected: float | None) -> str:
    differs = expected is not None and abs(loss - expected) >= TOLERANCE
    return f"{loss:.3f} ({expected:.2f})" if differs else f"{loss:.3f}"


def _with_task(task: str) -> Callable[[Any], Experiment]:
    return lambda experiment: replace(experiment, data=replace(experiment.data, task=task))


def _with_subject(subject: Subject) -> Callable[[Any], Experiment]:
    return lambda experiment: replace(experiment, network=subject.network)


if __name__ == "__main__":
    command(main, "Operators on selector-shift probes: what was measured beside what theory says.")
