"""Runs of about a second in a study beside the same runs in a bare loop, in one process and in turns.

A turn of the bare loop is a training. The study's turn is the same training with all that the study does for it: what
lies between the end of one turn of the bare loop and the begin of the next, checkpoints and progress included.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import torch

from dynops.ablation import Job, Study
from dynops.records import RunRecord
from dynops.training import Experiment
from studies.overhead import experiment
from studies.setting import learning_rate

WIDTH = 16
Times = list[tuple[float, float]]
"""Seconds of the processor and of the clock, by turn."""


def measure(rounds: int, epochs: int, folder: Path) -> dict[str, Times]:
    """Run both in turns; return the times of each turn but the first.

    Args:
        rounds: turns of each.
        epochs: of a training.
        folder: where the study is made, and dropped.
    """
    torch.set_num_threads(1)
    with TemporaryDirectory(dir=folder, prefix="overhead-") as made:
        turns = Turns()
        study(turns, rounds + 2, epochs).execute(Path(made))
    return {"study": turns.study[1 : rounds + 1], "bare": turns.bare[1 : rounds + 1]}


class Turns:
    """A run that trains twice, first for the bare loop, and takes the times of both."""

    def __init__(self) -> None:
        """Start before the first turn."""
        self.study: Times = []
        self.bare: Times = []
        self._ended: tuple[float, float] | None = None

    def run(self, job: Job) -> RunRecord:
        """Train for the bare loop, then for the study."""
        assert isinstance(job.spec, Experiment)
        begun = _clocks()
        if self._ended is not None:
            self.study.append(_between(self._ended, begun))
        job.spec.run(job.seed, accelerator="cpu")
        self._ended = _clocks()
        self.bare.append(_between(begun, self._ended))
        return job.spec.run(job.seed, folder=job.folder, accelerator="cpu", on_epoch=job.on_epoch)


def study(turns: Turns, runs: int, epochs: int) -> Study:
    """Return a study of at least so many runs: two learning rates, which take the same time."""
    return Study(
        name="overhead",
        question="What does a study take beside its runs?",
        base=experiment(WIDTH, epochs),
        factors=(learning_rate((0.01, 0.03)).factor,),
        seeds=range((runs + 1) // 2),
        run=turns.run,
    )


def _clocks() -> tuple[float, float]:
    return process_time(), perf_counter()


def _between(begun: tuple[float, float], ended: tuple[float, float]) -> tuple[float, float]:
    return ended[0] - begun[0], ended[1] - begun[1]
