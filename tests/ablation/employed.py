"""A study that can be killed, on a Ray cluster: `python employed.py FOLDER ADDRESS`.

No run ends while there is FOLDER.hold.
"""

import os
import runpy
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dynops.ablation import cluster
from dynops.ablation.workers import Call
from dynops.cli import command
from dynops.errors import StudyError

KILLABLE = Path(__file__).with_name("killable.py")


def work(program: Path, folder: Path, refusals: int) -> None:
    """Be a worker, in a process that can't import what the tests are made of."""
    for number in range(refusals):
        with suppress(FileExistsError):
            folder.with_suffix(f".refusal{number}").touch(exist_ok=False)
            raise StudyError("folder has another study: must be this one.")
    killable = runpy.run_path(str(program))

    def run(job: Any) -> Any:
        killable["note"](folder, f"start {job.folder} {os.getpid()}")
        while folder.with_suffix(".hold").exists():
            time.sleep(0.02)
        killable["note"](folder, f"end {job.folder} {os.getpid()}")
        return killable["record_of"](job)

    replace(killable["build"](folder), run=run).work(Call(folder=folder))


def main(
    folder: Path,
    address: str,
    cpus: float = 1,
    gpus: float = 0,
    most: int | None = None,
    refusals: int = 0,
    patience: float = 30.0,
) -> None:
    """Run the study; some of its workers refuse to."""
    cluster.PATIENCE = patience
    once = partial(work, KILLABLE, folder, refusals)
    cluster.Ray(address=address, cpus=cpus, gpus=gpus, most=most).employ(once)


if __name__ == "__main__":
    command(main, "A study that can be killed, on a Ray cluster.")
