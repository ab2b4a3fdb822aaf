"""A study of single-threaded trainings by one worker and by two, in turns: how many runs an hour."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, time
from typing import Any

import torch

from dynops.ablation import Job, Study
from dynops.records import RunRecord
from dynops.training import Experiment
from studies.overhead import experiment
from studies.setting import learning_rate

WIDTH = 16
NUMBERS = (1, 2)
"""How many workers share the study."""


def measure(turns: int, runs: int, epochs: int, folder: Path) -> dict[str, Any]:
    """Run the study with each number of workers in turns; return what each turn took. One worker is this process.

    Args:
        turns: studies of each number of workers.
        runs: runs of a study, an even number.
        epochs: of a run.
        folder: where the studies are made, and dropped.
    """
    found: dict[str, list[dict[str, float]]] = {str(number): [] for number in NUMBERS}
    for _ in range(turns):
        for number in NUMBERS:
            with TemporaryDirectory(dir=folder, prefix="workers-") as made:
                found[str(number)].append(_execute(number, runs, epochs, Path(made)))
    return {"runs": runs, "turns": found}


def study(runs: int, epochs: int, clock: Path) -> Study:
    """Return a study of so many runs, which write to a file when they begin and end."""
    return Study(
        name="workers",
        question="How many runs an hour?",
        base=experiment(WIDTH, epochs),
        factors=(learning_rate((0.01, 0.03)).factor,),
        seeds=range(runs // 2),
        run=partial(run, clock=clock),
    )


def run(job: Job, clock: Path) -> RunRecord:
    """Train with one thread."""
    assert isinstance(job.spec, Experiment)
    torch.set_num_threads(1)
    _note(clock)
    record = job.spec.run(job.seed, folder=job.folder, accelerator="cpu", on_epoch=job.on_epoch)
    _note(clock)
    return record


def _execute(workers: int, runs: int, epochs: int, folder: Path) -> dict[str, float]:
    """Run the study; return its seconds, and those from the begin of its first run to the end of its last one."""
    clock = folder / "clock"
    begun = perf_counter()
    records = study(runs, epochs, clock).execute(folder / "study", workers)
    seconds = perf_counter() - begun
    assert sum(record.accepted for record in records) == runs, f"{len(records)} records of {runs} runs"
    moments = [float(line) for line in clock.read_text().split()]
    return {"seconds": seconds, "running": max(moments) - min(moments)}


def _note(clock: Path) -> None:
    with open(clock, "a") as file:
        file.write(f"{time()}\n")
