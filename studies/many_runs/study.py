"""How many runs can a study have? What the runner takes for each, beside what a run takes, and what a worker adds.

- `scale`: a study of 100 cells whose runs take no time, with more and more seeds, and its report, each in a process of
  its own for its peak memory.
- `overhead`: runs of about a second in a study beside the same runs in a bare loop, in one process and in turns.
- `workers`: a study of single-threaded trainings by one worker and by two, in turns.

    python -m studies.many_runs
    python -m studies.many_runs --parts '[scale]' --sizes '[1000]'
"""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from math import log
from pathlib import Path
from statistics import linear_regression, median, quantiles
from typing import Any, Literal

import torch
from rich.console import Console

from dynops.ablation.reporting.tables import Table
from dynops.errors import SpecError
from dynops.records import write_atomically
from dynops.specs import at_least
from studies.many_runs import overhead, scale, workers
from studies.measured import identity, open_measured
from studies.speed.memory import PROCESS

MIB = 1 << 20
HOUR = 3600
FEWEST = 2
"""Turns that have quartiles, and sizes that have a slope."""


def main(
    parts: tuple[Literal["scale", "overhead", "workers"], ...] = ("scale", "overhead", "workers"),
    sizes: tuple[int, ...] = (1_000, 10_000, 100_000),
    rounds: int = 20,
    epochs: int = 4,
    turns: int = 5,
    runs: int = 24,
    folder: Path = Path("runs/many_runs"),
) -> None:
    """Measure what is not measured yet, and print and keep the tables.

    Args:
        parts: what is measured.
        sizes: numbers of runs of studies whose runs take no time.
        rounds: turns of the study and of the bare loop.
        epochs: passes over the digits in a run of about a second; a run of the workers has three times as many.
        turns: studies of each number of workers.
        runs: runs of each of them; an even number.
        folder: where `many_runs.json` and `many_runs.md` go, and the studies for as long as they are measured.
    """
    check_settings(sizes, rounds, epochs, turns, runs)
    # a file or a pipe has no width that a line could be too long for
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    torch.set_num_threads(1)
    settings = {"rounds": rounds, "epochs": epochs, "turns": turns, "runs": runs}
    measured = open_measured(folder / "many_runs.json", identity(torch.device("cpu"), settings))
    if measured.message:
        console.print(measured.message, soft_wrap=True)
    folder.mkdir(parents=True, exist_ok=True)
    calls = {
        "scale": {f"scale {size}": partial(scale.measure, size, folder) for size in sizes},
        "overhead": {"overhead": partial(overhead.measure, rounds, epochs, folder)},
        "workers": {"workers": partial(workers.measure, turns, runs, 3 * epochs, folder)},
    }
    for part in parts:
        for name, call in calls[part].items():
            measured.get(name, call)
    made = tables(measured.plain())
    write_atomically(folder / "many_runs.md", markdown(measured.plain()))
    for table in made:
        console.print(table.to_terminal(*table.columns))
        console.print(table.note, soft_wrap=True, markup=False)
    console.print(f"Kept in {folder}: many_runs.json, many_runs.md.", soft_wrap=True)


def check_settings(sizes: tuple[int, ...], rounds: int, epochs: int, turns: int, runs: int) -> None:
    """Check that all can be measured on this machine.

    Raises:
        SpecError: it can't.
    """
    for size in sizes:
        scale.check_size(size)
    at_least("epochs", epochs, 1)
    at_least("rounds", rounds, FEWEST)
    at_least("turns", turns, FEWEST)
    if runs < 2 or runs % 2:
        raise SpecError(f"runs has {runs}: must be an even number, as there are two learning rates.")
    if not (PROCESS / "status").exists():
        raise SpecError(f"{PROCESS} has no status: peaks of a process are measured on Linux only.")


def tables(saved: Mapping[str, Any]) -> list[Table]:
    """Return a table of each part that was measured."""
    points = saved["points"]
    sizes = sorted((point for name, point in points.items() if name.startswith("scale")), key=lambda each: each["size"])
    return [
        *([scale_table(sizes)] if sizes else []),
        *([overhead_table(points["overhead"])] if "overhead" in points else []),
        *([workers_table(points["workers"])] if "workers" in points else []),
    ]


def scale_table(points: Sequence[Mapping[str, Any]]) -> Table:
    """List what a study and its report take, by the number of runs."""
    note = f"{scale.CELLS} cells, each size once; one worker. Peaks are those of whole processes, libraries included."
    if len(points) >= FEWEST:
        own, of_report = (
            slope([(each["size"], each[key]) for each in points]) for key in ("seconds", "report_seconds")
        )
        note += f" The time grows with the runs to the power of {own:.2f}, that of the report of {of_report:.2f}."
    return Table(
        title="Runs that take no time",
        columns=("runs", "seconds", "ms a run", "peak MiB", "journal MiB", "report, seconds", "report, peak MiB"),
        sides="rrrrrrr",
        rows=tuple(
            (
                f"{each['size']:,}",
                f"{each['seconds']:.1f}",
                f"{1000 * each['seconds'] / each['size']:.2f}",
                f"{each['peak'] / MIB:.0f}",
                f"{each['journal'] / MIB:.1f}",
                f"{each['report_seconds']:.1f}",
                f"{each['report_peak'] / MIB:.0f}",
            )
            for each in points
        ),
        note=note,
    )


def overhead_table(times: Mapping[str, Sequence[Sequence[float]]]) -> Table:
    """List what a run takes in a bare loop and in a study."""
    rows = []
    for place, clock in enumerate(("processor", "clock")):
        bare, study = ([turn[place] for turn in times[name]] for name in ("bare", "study"))
        ratio = spread([own / other for own, other in zip(study, bare, strict=True)], 3)
        rows.append((clock, f"{median(bare):.3f}", f"{median(study):.3f}", ratio))
    return Table(
        title="A run in a study beside a bare loop",
        columns=("seconds of the", "bare loop", "study", "study / bare loop"),
        sides="lrrr",
        rows=tuple(rows),
        note=f"Medians and [quartiles] of {len(times['bare'])} turns; one thread, one worker.",
    )


def workers_table(found: Mapping[str, Any]) -> Table:
    """List how many runs an hour one worker and two have."""
    (_, one), (number, more) = found["turns"].items()
    rows = []
    for name, key in (("all", "seconds"), ("without start and end", "running")):
        rates = [[found["runs"] * HOUR / turn[key] for turn in turns] for turns in (one, more)]
        ratio = spread([many / single for single, many in zip(*rates, strict=True)], 2)
        rows.append((name, *(f"{median(each):,.0f}" for each in rates), ratio))
    return Table(
        title="Runs an hour",
        columns=("time", "1 worker", f"{number} workers", "ratio"),
        sides="lrrr",
        rows=tuple(rows),
        note=f"Medians and [quartiles] of {len(one)} turns of {found['runs']} runs, each with one thread. "
        "All: with the start of the workers, which load torch anew, and their end.",
    )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the power with which something grows, by a line through the logarithms.

    >>> slope([(10, 3.0), (100, 30.0)])
    1.0
    """
    return round(linear_regression([log(x) for x, _ in points], [log(y) for _, y in points]).slope, 9)


def spread(values: Sequence[float], digits: int) -> str:
    """Write a median with its quartiles.

    >>> spread([1.0, 2.0, 3.0], 1)
    '2.0 [1.0, 3.0]'
    """
    low, middle, high = quantiles(values, n=4)
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def markdown(saved: Mapping[str, Any]) -> str:
    """Write the tables as a page of Markdown."""
    head = f"{saved['device']}; commit {saved['commit'] or '-'}; torch {saved['versions']['torch']}."
    body = "\n\n".join(f"## {table.title}\n\n{table.to_markdown()}" for table in tables(saved))
    return f"# What running a study takes\n\n{head}\n\n{body}\n"
