"""Several workers on this machine: a process for each, with its share of the cores or a GPU, and one view of them."""

import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Protocol

import torch

from dynops.ablation.plan import Plan
from dynops.ablation.progress import Progress
from dynops.ablation.store import RECORDS, read_plan, read_study
from dynops.ablation.tuning import FOLDER
from dynops.errors import DynopsError, SpecError, StudyError
from dynops.records import RunRecord

LOGS = "workers"
PAUSE = 0.5  # seconds between two looks at the folder
GRACE = 1.0  # seconds in which workers may have heard Ctrl-C themselves
PATIENCE = 10.0  # seconds in which a worker that is asked to end gives back what it runs


class Work(Protocol):
    """What several processes can do together: a study."""

    def work(self, folder: Path, *, since: datetime) -> list[RunRecord]:
        """Be one worker."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What of the machine a worker has."""

    cores: tuple[int, ...]
    """The cores on which it runs; empty where they can't be chosen."""
    threads: int
    """How many threads a run has."""
    gpu: str | None
    """The GPU that it sees, as `CUDA_VISIBLE_DEVICES` names it."""

    def settle(self) -> None:
        """Keep this process to its place; to be called before it uses a GPU."""
        if self.cores:
            os.sched_setaffinity(0, self.cores)
        os.environ["OMP_NUM_THREADS"] = str(self.threads)
        torch.set_num_threads(self.threads)
        if self.gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.gpu


def places(workers: int) -> list[Place]:
    """Share this machine out: cores in equal parts, in turn where there are fewer than workers; GPUs in turn."""
    known = hasattr(os, "sched_getaffinity")
    cores = sorted(os.sched_getaffinity(0)) if known else list(range(os.cpu_count() or 1))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    found = []
    for worker in range(workers):
        share = tuple(cores[worker % len(cores) :: workers])
        gpu = gpus[worker % len(gpus)] if torch.cuda.device_count() else None
        found.append(Place(cores=share if known else (), threads=len(share), gpu=gpu))
    return found


def share(folder: Path, workers: int, again: Callable[[], Work]) -> list[RunRecord]:
    """Run a study with several processes, show how far it is, and return its records; errors as in `Study.execute`."""
    if workers < 1:
        raise SpecError(f"workers has {workers}: must be at least 1.")
    try:
        pickle.dumps(again)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise SpecError(
            f"workers has {workers}, the study can't be sent to another process ({error}): must be made of functions "
            "of modules. Or pass `again`, a function of a module that makes the study."
        ) from error
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    spawn = multiprocessing.get_context("spawn")
    since = datetime.now()
    processes = [
        spawn.Process(target=_work, args=(again, folder, since, place, folder / LOGS / f"{number}.log"))
        for number, place in enumerate(places(workers), start=1)
    ]
    try:
        for process in processes:
            process.start()
        _watch(folder, processes)
    finally:
        _end(processes)
    if all(process.exitcode for process in processes):
        endings = " ".join(_ending(folder, number, each) for number, each in enumerate(processes, start=1))
        raise StudyError(f"{folder} has no worker left: {endings} The same command goes on from here.")
    return read_study(folder)[1]


def _work(again: Callable[[], Work], folder: Path, since: datetime, place: Place, log: Path) -> None:
    """Be one of the processes; what it says goes to its log."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell started in the background would not hear it
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    place.settle()
    try:
        again().work(folder, since=since)
    except DynopsError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _watch(folder: Path, processes: Sequence[SpawnProcess]) -> None:
    """Show how far the tuning is, then the comparison, until all workers have ended."""
    said: set[int] = set()

    def alive() -> bool:
        return any(process.is_alive() for process in processes)

    while alive():
        time.sleep(PAUSE)
        if (stage := _stage(folder)) is None:
            continue
        with Progress(stage) as progress:
            while alive() and _stage(folder) == stage:
                progress.refresh()
                _say_who_died(progress, folder, processes, said)
                time.sleep(PAUSE)
            progress.refresh()


def _stage(folder: Path) -> Path | None:
    """The folder of what is being run: the comparison's, that of its tuning, or none as long as there is none."""
    if not (folder / RECORDS).exists():
        return None
    tuning = folder / FOLDER
    return tuning if read_plan(folder, Plan, "study").tuned is None and (tuning / RECORDS).exists() else folder


def _say_who_died(progress: Progress, folder: Path, processes: Sequence[SpawnProcess], said: set[int]) -> None:
    for number, process in enumerate(processes, start=1):
        if process.exitcode and number not in said:
            said.add(number)
            progress.say(f"{_ending(folder, number, process)} The others go on.")


def _ending(folder: Path, number: int, process: SpawnProcess) -> str:
    """How a worker ended, in a sentence."""
    code = process.exitcode or 0
    how = f"by signal {-code}" if code < 0 else f"with status {code}"
    log = folder / LOGS / f"{number}.log"
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    last = f"its last words: {lines[-1]}" if lines else "without a word"
    return f"Worker {number} ended {how}, {last} ({log})."


def _end(processes: Sequence[SpawnProcess]) -> None:
    """Have all processes end: let them, ask them, make them."""
    for patience, number in ((GRACE, signal.SIGINT), (PATIENCE, signal.SIGKILL)):
        until = time.monotonic() + patience
        for process in processes:
            if process.pid is not None:
                process.join(max(0.0, until - time.monotonic()))
                if process.is_alive():
                    os.kill(process.pid, number)
    for process in processes:
        if process.pid is not None:
            process.join()
