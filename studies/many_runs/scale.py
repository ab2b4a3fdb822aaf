"""A study whose runs take no time, with many seeds: what the runner and the report take for each of them."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from math import prod
from multiprocessing import get_context
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from dynops.ablation import Difference, Factor, Job, Study, report
from dynops.ablation.shared import JOURNAL
from dynops.errors import SpecError
from dynops.records import RunRecord
from dynops.specs import Spec, spec
from studies.speed.memory import resident

LEVELS = {"first": 4, "second": 5, "third": 5}
CELLS = prod(LEVELS.values())
GAIN = 0.01
"""What each level of the first factor adds to the outcome; also the noise's deviation."""


@spec
class Simulated(Spec):
    """A cell of the study."""

    first: int = 0
    second: int = 0
    third: int = 0


def check_size(size: int) -> None:
    """Check that a study can have so many runs, all cells with all seeds."""
    if size < CELLS or size % CELLS:
        raise SpecError(f"sizes has {size}: must be a multiple of {CELLS}, the number of cells.")


def study(size: int) -> Study:
    """Return a study of so many runs."""
    return Study(
        name="many_runs",
        question="Does the outcome grow with the first factor?",
        base=Simulated(),
        factors=tuple(_factor(name, number) for name, number in LEVELS.items()),
        seeds=range(size // CELLS),
        run=simulate,
        family=tuple(Difference("first", str(level), "0") for level in range(1, LEVELS["first"])),
    )


def simulate(job: Job) -> RunRecord:
    """Return at once what a run could have had as its result."""
    assert isinstance(job.spec, Simulated)
    noise = Random(f"{job.spec!r} {job.seed}").gauss(0.0, GAIN)
    accuracy = 0.5 + GAIN * job.spec.first + noise
    epoch = {"epoch": 1, "train_loss": 1.0, "loss": 1.0, "accuracy": accuracy, "learning_rate": 0.01}
    return RunRecord(
        seed=job.seed,
        status="complete",
        metrics={"accuracy": accuracy, "loss": 1.0},
        history=(epoch,),
        spec=job.spec.to_plain(),
    )


def measure(size: int, folder: Path) -> dict[str, Any]:
    """Run a study of some size and report on it, in two processes; return seconds and peaks, and drop the study."""
    with TemporaryDirectory(dir=folder, prefix="many-") as made:
        place = Path(made)
        ran, reported = (_apart(call) for call in (partial(_run, size, place), partial(_report, place)))
        return {
            "size": size,
            "seconds": ran["seconds"],
            "peak": ran["peak"],
            "journal": (place / JOURNAL).stat().st_size,
            "report_seconds": reported["seconds"],
            "report_peak": reported["peak"],
        }


def _apart(call: Callable[[], None]) -> dict[str, float]:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_measured, call).result()


def _run(size: int, place: Path) -> None:
    found = len(study(size).execute(place))
    assert found == size, f"{found} records of {size}"


def _report(place: Path) -> None:
    report(place)


def _measured(call: Callable[[], None]) -> dict[str, float]:
    with open(os.devnull, "w") as unread, redirect_stdout(unread):  # a line a run
        begun = perf_counter()
        call()
        return {"seconds": perf_counter() - begun, "peak": resident("VmHWM")}


def _factor(name: str, number: int) -> Factor:
    return Factor(name, {str(level): partial(_with_level, name=name, level=level) for level in range(number)})


def _with_level(cell: Simulated, name: str, level: int) -> Simulated:
    return replace(cell, **{name: level})
