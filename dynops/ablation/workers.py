"""Several workers on this machine: a process for each, with its share of the cores or a GPU, and one view of them."""

import io
import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

import torch

from dynops.ablation.cluster import GONE, Ray
from dynops.ablation.database import shared_at
from dynops.ablation.plan import Plan
from dynops.ablation.progress import Progress
from dynops.ablation.shared import Shared
from dynops.ablation.store import RECORDS, read_plan, read_study
from dynops.ablation.tuning import FOLDER
from dynops.errors import DynopsError, SpecError, StudyError
from dynops.records import RunRecord
from dynops.specs import at_least

LOGS = "workers"
PAUSE = 0.5  # seconds between two looks at the folder
GRACE = 1.0  # seconds in which workers may have heard Ctrl-C themselves
PATIENCE = 10.0  # seconds in which a worker that is asked to end gives back what it runs
REFUSED = 2  # status of a worker that can't work here: another one could not either
START = "spawn"  # how a worker's process is started
HUNG = 4  # status of one whose run made no progress
MOST_DEATHS = 3  # of workers in one place, one after the other with no run done in between


@dataclass(frozen=True, kw_only=True)
class Call:
    """What all workers of one call are told."""

    folder: Path
    """Of the study, on each machine."""
    storage: str | None = None
    """The database where they meet; None: the folder."""
    maker: str | None = None
    """Says how the study is made again, where plain data can."""
    retry: str | None = None
    """Names the call, if it runs failed points again."""


class Work(Protocol):
    """What several processes can do together: a study."""

    def work(self, call: Call, *, hung: Callable[[], None]) -> object:
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


def places(workers: int, devices: int = 1) -> list[Place]:
    """Share this machine out: cores in equal parts, in turn where there are fewer than workers; GPUs likewise.

    Args:
        workers: how many there are.
        devices: how many GPUs each has.
    Raises:
        SpecError: there are GPUs, but fewer.
    """
    known = hasattr(os, "sched_getaffinity")
    cores = sorted(os.sched_getaffinity(0)) if known else list(range(os.cpu_count() or 1))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    shares = [gpus[first : first + devices] for first in range(0, len(gpus) - devices + 1, devices)]
    if torch.cuda.device_count() and not shares:
        raise SpecError(f"devices has {devices}: this machine has {len(gpus)} GPUs.")
    found = []
    for worker in range(workers):
        share = tuple(cores[worker % len(cores) :: workers])
        gpu = ",".join(shares[worker % len(shares)]) if torch.cuda.device_count() else None
        found.append(Place(cores=share if known else (), threads=len(share), gpu=gpu))
    return found


def share(maker: Callable[[], Work], call: Call, workers: int | Ray, devices: int) -> list[RunRecord]:
    """Run a study with several processes, show how far it is, and return its records; errors as in `Study.execute`."""
    if not isinstance(workers, Ray):
        at_least("workers", workers, 0)
    work = partial(be_worker, maker, replace(call, folder=call.folder.resolve()))  # nodes have other folders to be in
    try:
        pickle.dumps(work)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise SpecError(
            f"workers has {workers}, the study can't be sent to another process ({error}): must be made of functions "
            "of modules. Or pass `maker`, a function of a module that makes the study."
        ) from error
    logs = call.folder / LOGS
    logs.mkdir(parents=True, exist_ok=True)
    if isinstance(workers, Ray):
        slots = [Slot("ray", partial(workers.employ, work), None, logs)]
    else:
        each = enumerate(places(workers, devices), start=1)
        slots = [Slot(str(number), work, place, logs) for number, place in each]
    with closing(shared_at(call.folder, call.storage)) as shared:
        try:
            for slot in slots:
                slot.start()
            _watch(shared, slots)
        finally:
            _end([slot.process for slot in slots if slot.process is not None])
        shared.look()
    if all(slot.lost for slot in slots):
        raise StudyError(
            f"{call.folder} has no worker left: {' '.join(slot.ending() for slot in slots)} The same command goes on "
            "from here."
        )
    return read_study(call.folder)[1]


def hear() -> None:
    """Give back what runs when asked to end: by Ctrl-C, also in a shell's background, or by a scheduler."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def be_worker(maker: Callable[[], Work], call: Call) -> None:
    """Make the study in this process, which is for that alone, and work on it; end the process if a run hangs."""
    maker().work(call, hung=partial(os._exit, HUNG))


class Slot:
    """A worker's place, and the process that has it; one that dies is followed by another."""

    def __init__(self, name: str, work: Callable[[], object], place: Place | None, logs: Path) -> None:
        """Prepare a place for a worker."""
        self._name, self._work, self._place, self._log = name, work, place, logs / f"{name}.log"
        self._deaths = self._done = 0
        self._given_up = False
        self.process: BaseProcess | None = None

    def start(self) -> None:
        """Start a process there."""
        context: Any = multiprocessing.get_context(START)
        process: BaseProcess = context.Process(target=_work, args=(self._work, self._place, self._log))
        process.start()
        self.process = process

    @property
    def alive(self) -> bool:
        """Whether a worker is there."""
        return self.process is not None and self.process.is_alive()

    @property
    def lost(self) -> bool:
        """Whether the last worker there ended otherwise than well."""
        return self.process is not None and bool(self.process.exitcode)

    @property
    def going(self) -> bool:
        """Whether a worker is there, or another may come."""
        return self.alive or (self.lost and not self._given_up)

    def follow(self, done: int) -> str:
        """Start another worker where one died, unless several did with no run done between; say what happened.

        Args:
            done: how many runs of the study have ended.
        """
        if not self.lost or self._given_up:
            return ""
        assert self.process is not None
        self._deaths = 1 if done > self._done else self._deaths + 1
        self._done = done
        said = self.ending()
        if self.process.exitcode in (REFUSED, GONE) or self._deaths > MOST_DEATHS:
            self._given_up = True
            return said
        self.start()
        return f"{said} Another takes its place."

    def ending(self) -> str:
        """How its worker ended, in a sentence."""
        assert self.process is not None
        code = self.process.exitcode or 0
        how = f"by signal {-code}" if code < 0 else f"with status {code}"
        lines = self._log.read_text(errors="replace").strip().splitlines() if self._log.exists() else []
        last = f"its last words: {lines[-1]}" if lines else "without a word"
        return f"Worker {self._name} ended {how}, {last} ({self._log})."


class _Log(io.FileIO):
    """A worker's log, which does without what a full disk does not take; no run ends for want of words."""

    def write(self, text: Any) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)


def _work(work: Callable[[], object], place: Place | None, log: Path) -> None:
    """Be one of the processes; what it says goes to its log."""
    hear()
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = (io.TextIOWrapper(_Log(number, "w"), line_buffering=True) for number in (1, 2))
    if place is not None:
        place.settle()
    try:
        work()
    except DynopsError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(REFUSED)
    except KeyboardInterrupt:
        sys.exit(130)


def _watch(shared: Shared, slots: Sequence[Slot]) -> None:
    """Show how far the tuning is, then the comparison, until all workers have ended."""
    while any(slot.going for slot in slots):
        time.sleep(PAUSE)
        if (stage := _stage(shared)) is None:
            for slot in slots:
                slot.follow(0)
            continue
        with Progress(stage) as progress:
            while any(slot.going for slot in slots) and (now := _stage(shared)) and now.folder == stage.folder:
                progress.refresh()
                for slot in slots:
                    if said := slot.follow(progress.ended):
                        progress.say(said)
                time.sleep(PAUSE)
            progress.refresh()


def _stage(shared: Shared) -> Shared | None:
    """What is being run: the comparison, its tuning, or none as long as there is none."""
    shared.look()
    if not (shared.folder / RECORDS).exists():
        return None
    if read_plan(shared.folder, Plan, "study").tuned is not None:
        return shared
    tuning = shared.part(FOLDER)
    tuning.look()
    return tuning if (tuning.folder / RECORDS).exists() else shared


def _end(processes: Sequence[BaseProcess]) -> None:
    """Have all processes end: let them, ask them, make them."""
    for patience, number in ((GRACE, signal.SIGINT), (PATIENCE, signal.SIGKILL)):
        until = time.monotonic() + patience
        for process in processes:
            process.join(max(0.0, until - time.monotonic()))
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, number)
    for process in processes:
        process.join()
