"""A small study with real training, whose process may kill itself in one: `python trainable.py FOLDER --step N`.

Each epoch leaves a line `epoch POINT PROCESS` in FOLDER/executions when its metrics are known.
"""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dynops.ablation import Factor, Job, Study, leases
from dynops.cli import command
from dynops.data import Digits
from dynops.nets import KerasCNN
from dynops.records import RunRecord
from dynops.training import Experiment, Recipe, checkpoint
from studies.setting import Conditions, with_rate

EPOCHS = 3
STEPS = 3 + 2  # of an epoch: batches that are learnt, and batches that are evaluated


@dataclass(frozen=True, kw_only=True)
class Noting:
    """Runs that note their epochs; the process dies at a step of its first run."""

    folder: Path
    conditions: Conditions
    step: int | None

    def run(self, job: Job) -> RunRecord:
        steps = 0

        def alive() -> None:
            nonlocal steps
            steps += 1
            job.alive()
            if steps == self.step:
                os.kill(os.getpid(), signal.SIGKILL)

        def on_epoch(metrics: Mapping[str, float]) -> None:
            note(self.folder, f"epoch {job.folder}")
            job.on_epoch(metrics)

        note(self.folder, f"start {job.folder}")
        return self.conditions.run(replace(job, alive=alive, on_epoch=on_epoch))


def note(folder: Path, what: str) -> None:
    """Add a line to the executions in one piece."""
    with open(folder / "executions", "a") as file:
        file.write(f"{what} {os.getpid()}\n")


def make(folder: Path, step: int | None = None, devices: int = 1) -> Study:
    """Two cells with one seed."""
    checkpoint.SECONDS = 0.0  # each epoch leaves one
    leases.LEASE = 10.0
    noting = Noting(folder=folder, conditions=Conditions(accelerator="cpu", devices=devices), step=step)
    return Study(
        name="trainable",
        question="Does it go on?",
        base=Experiment(
            network=KerasCNN(),  # has no batch norm, which sees a device's part alone
            data=Digits(fraction=0.1),
            recipe=Recipe(epochs=EPOCHS, batch_size=32, learning_rate=1e-2),
        ),
        factors=(Factor("rate", {"high": lambda base: base, "low": lambda base: with_rate(base, 3e-3)}),),
        seeds=range(1),
        run=noting.run,
    )


def main(folder: Path, step: int | None = None, devices: int = 1, deaf: bool = False) -> None:
    """Run the study; die at the step of the first run; deaf to Ctrl-C, as what a script starts in the background."""
    if deaf:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    make(folder, step, devices).execute(folder, devices=devices)


if __name__ == "__main__":
    command(main, "A study with real training.")
