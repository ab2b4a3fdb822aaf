"""A small search whose process is killed at every moment that matters: `python killable_search.py FOLDER`.

Each moment has a process of its own, forked from one that has imported everything; the last one goes on to the end.
Each run leaves a line `start POINT` and, when it ends, `end POINT` in FOLDER/executions.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dynops.ablation import Factor, Job, Objective, Search
from dynops.ablation.searches import search
from dynops.ablation.searches.sampling import Sampling
from dynops.records import RunRecord
from dynops.specs import Spec, spec

KERNELS = {"static": 0.50, "twin": 0.46, "pixel": 0.62, "mixture": 0.55}
TRIALS = 14
SEEDS = (0, 1)
MOMENTS = (
    ("in the middle of a run", 6),
    ("between two seeds", 1),
    ("while a record is written", 5),
    ("between record and sampler", 8),
    ("while the results are added", 3),
)


@spec
class Toy(Spec):
    """What a point of the search is: it costs by size and width, and the kernel decides how much comes of it."""

    kernel: str = "static"
    size: int = 3
    width: int = 8
    rate: float = 0.01


def change(name: str, value: Any, toy: Toy) -> Toy:
    """Return the toy with one field changed."""
    return replace(toy, **{name: value})


def levels(name: str, *values: Any) -> Factor:
    """A factor that sets a field."""
    return Factor(name, {str(value): partial(change, name, value) for value in values})


def make(run: Callable[[Job], RunRecord], **changes: Any) -> Search:
    """A search through 4 x 3 x 6 points of nothing but its own bookkeeping."""
    settings: dict[str, Any] = {
        "name": "killable",
        "question": "Is anything lost?",
        "base": Toy(),
        "factors": (levels("kernel", *KERNELS), levels("size", 3, 5, 7), levels("width", 8, 12, 16, 24, 32, 48)),
        "objectives": (Objective("accuracy", "maximise"), Objective("parameters", "minimise")),
        "run": run,
        "trials": TRIALS,
        "sampler": "nsga2",
        "startup": 4,
    }
    return Search(**(settings | changes))


def accuracy_of(toy: Toy) -> float:
    """A larger window does not pay, a larger width does, ever less."""
    return KERNELS[toy.kernel] + 0.3 * (1 - 4 / toy.width) - 0.01 * toy.size


def record_of(job: Job) -> RunRecord:
    """A result that depends on the point and the seed alone."""
    assert isinstance(job.spec, Toy)
    value = accuracy_of(job.spec) + job.seed / 1000
    return RunRecord(
        seed=job.seed,
        status="complete",
        metrics={"accuracy": value, "loss": 1 - value},
        history=({"epoch": 1.0, "loss": 1.0, "accuracy": value},),
        parameters=job.spec.width * job.spec.size**2,
        macs=job.spec.width**2,
        device="none",
    )


def die(*arguments: Any) -> None:
    """Die as nobody can catch it."""
    os.kill(os.getpid(), signal.SIGKILL)


def tear(path: Path, record: RunRecord) -> None:
    """Write half a line, then die."""
    with open(path, "a") as file:
        file.write(record.to_json()[:50])
    die()


def at_call(number: int, function: Callable[..., Any], act: Callable[..., None]) -> Callable[..., Any]:
    """Act before the call of that number, counted from 1."""
    calls = 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            act(*arguments)
        return function(*arguments, **options)

    return counted


def attempt(folder: Path, moment: str, number: int) -> None:
    """Run the search; die at the moment."""
    if moment == "while a record is written":
        search.append_record = at_call(number, search.append_record, tear)
    elif moment == "between record and sampler":
        Sampling.tell = at_call(number, Sampling.tell, die)
    elif moment == "between two seeds":
        search.write_trial = at_call(number, search.write_trial, die)
    elif moment == "while the results are added":
        Sampling.add = at_call(number, Sampling.add, die)
    runs = 0

    def run(job: Job) -> RunRecord:
        nonlocal runs
        runs += 1
        with open(folder / "executions", "a") as file:
            file.write(f"start {job.folder}\n")
        if moment == "in the middle of a run" and runs == number:
            die()
        with open(folder / "executions", "a") as file:
            file.write(f"end {job.folder}\n")
        return record_of(job)

    make(run, seeds=SEEDS).execute(folder)


def main(folder: Path) -> None:
    """Start the search once for each moment, and once more; say how each start ended."""
    for moment, number in (*MOMENTS, ("never", 0)):
        child = os.fork()
        if not child:
            attempt(folder, moment, number)
            sys.stdout.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(f"{moment}: {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
