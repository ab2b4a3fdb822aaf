"""Does a study lose nothing and count nothing twice, whatever is killed? Short runs, and a fault every few seconds.

Workers share a study whose runs do nothing but wait. A worker drawn at random is killed, or stopped for longer than its
lease and then continued; half-way the coordinator is killed, and another one started. When the time is over, or the
study is, nothing more is done to it; then its records are counted.

    python -m studies.soak
"""

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from dynops import zoo
from dynops.ablation import Factor, Job, Study, leases, ledger, read_study, workers
from dynops.ablation.reporting.tables import Table
from dynops.cli import command
from dynops.errors import DynopsError, SpecError
from dynops.records import RunRecord, write_atomically
from dynops.specs import at_least
from dynops.training.environment import commit, device_name, versions

LEASE = 3.0  # seconds, instead of a minute, so that many leases end within the time
CELLS = 4
TICK = 0.1  # seconds between two looks at what is due
PARTING = 60.0  # seconds in which what still works may end
SHARE = 0.6  # of the time in which the runs would end if nothing were done to them
STARTS = "starts"


class SoakError(DynopsError):
    """A study that did not end."""


def study(runs: int, seconds: float) -> Study:
    """Return a study of so many runs, in a process that is for it alone."""
    leases.LEASE = LEASE
    ledger.MOST_LOSSES = runs  # it is not the point that kills
    return Study(
        name="soak",
        question="Is anything lost or counted twice?",
        base=zoo.involution(),
        factors=(
            Factor("bias", {"without": lambda operator: operator, "with": lambda o: replace(o, bias=True)}),
            Factor("channels", {"16": lambda o: o, "8": lambda o: replace(o, channels=zoo.involution(7, 8).channels)}),
        ),
        seeds=range(runs // CELLS),
        run=partial(wait, seconds=seconds),
    )


def wait(job: Job, seconds: float) -> RunRecord:
    """Note which process runs it, and wait for some time; the result depends on cell and seed alone."""
    with open(job.folder.parents[2] / STARTS, "a") as file:
        file.write(f"{os.getpid()}\n")
    drawn = random.Random(f"{job.spec.fingerprint()} {job.seed}").random()
    time.sleep(seconds * (0.5 + drawn))
    return RunRecord(seed=job.seed, status="complete", metrics={"accuracy": drawn})


def coordinate(folder: Path, runs: int, seconds: float, crew: int, start: str) -> None:
    """Be a coordinator."""
    workers.START = start
    multiprocessing.set_forkserver_preload([__name__])
    maker = partial(study, runs, seconds)
    with open(folder.with_name("coordinator.log"), "a") as log, redirect_stdout(log), redirect_stderr(log):
        maker().execute(folder, crew, maker=maker)


@dataclass(kw_only=True)
class Soak:
    """A study, and what is done to it."""

    folder: Path
    """Of the study."""
    runs: int
    """A multiple of the number of cells."""
    crew: int
    """How many workers a coordinator has."""
    seconds: float
    """For how long something is done to it."""
    each: float
    """Seconds that a run takes, on the average."""
    pauses: tuple[float, float]
    """Seconds between two faults, at least and at most."""
    start: str = "spawn"
    """How processes are started."""
    faults: Counter[str] = field(default_factory=Counter)
    """How often what was done."""
    _stopped: dict[int, float] = field(default_factory=dict)
    _killed: set[int] = field(default_factory=set)
    _draw: random.Random = field(default_factory=lambda: random.Random(0))

    def run(self) -> dict[str, Any]:
        """Do it, and return what was found.

        Raises:
            SoakError: the study did not end well.
        """
        coordinator = self._begin()
        while coordinator.is_alive() and not self._workers():
            time.sleep(TICK)
        began = time.monotonic()
        due = began + self._draw.uniform(*self.pauses)
        try:
            while coordinator.is_alive():
                time.sleep(TICK)
                now = time.monotonic()
                self._continue(now)
                if now > began + self.seconds / 2 and not self.faults["coordinator killed"]:
                    coordinator.kill()
                    coordinator.join()
                    self.faults["coordinator killed"] += 1
                    coordinator = self._begin()
                if due < now < began + self.seconds:
                    self._disturb(now)
                    due = now + self._draw.uniform(*self.pauses)
            self._part()
        finally:
            coordinator.kill()
            self._continue(float("inf"))
        if coordinator.exitcode:
            raise SoakError(f"study has a coordinator that ended with status {coordinator.exitcode}: must end well.")
        return self._found(time.monotonic() - began)

    def _begin(self) -> BaseProcess:
        context: Any = multiprocessing.get_context(self.start)
        arguments = (self.folder, self.runs, self.each, self.crew, self.start)
        process: BaseProcess = context.Process(target=coordinate, args=arguments)
        process.start()
        return process

    def _disturb(self, now: float) -> None:
        """Kill a worker, or stop it for a while."""
        if not (there := sorted(self._workers())):
            return
        process = self._draw.choice(there)
        if self._draw.random() < 0.6:
            self._killed.add(process)
            os.kill(process, signal.SIGKILL)
            self.faults["worker killed"] += 1
        else:
            self._stopped[process] = now + self._draw.uniform(0.5, 2.0) * LEASE
            os.kill(process, signal.SIGSTOP)
            self.faults["worker stopped and continued"] += 1

    def _continue(self, now: float) -> None:
        for process in [process for process, until in self._stopped.items() if until <= now]:
            del self._stopped[process]
            os.kill(process, signal.SIGCONT)

    def _workers(self) -> set[int]:
        """The processes that started a run, and are alive and not stopped."""
        starts = self.folder / STARTS
        known = {int(line) for line in starts.read_text().splitlines()} if starts.exists() else set()
        return {process for process in known - self._killed - set(self._stopped) if _alive(process)}

    def _part(self) -> None:
        """Wait for what still works: those whose coordinator was killed, or that were stopped."""
        until = time.monotonic() + PARTING
        while len(leases.FolderLeases(self.folder)) or self._stopped:
            if time.monotonic() > until:
                raise SoakError(f"study has workers that did not end within {PARTING:.0f} s: must end.")
            self._continue(time.monotonic())
            time.sleep(TICK)

    def _found(self, seconds: float) -> dict[str, Any]:
        _, records = read_study(self.folder)
        points = Counter(record.point for record in records if record.accepted)
        return {
            "faults": dict(self.faults),
            "expected": self.runs,
            "found": len(points),
            "twice": points.total() - len(points),
            "failed": sum(not record.accepted for record in records),
            "starts": len((self.folder / STARTS).read_text().splitlines()),
            "workers": self.crew,
            "seconds": seconds,
            "device": device_name(torch.device("cpu")),
            "cores": os.cpu_count(),
            "versions": versions(),
            "commit": commit(),
        }


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def table(saved: Mapping[str, Any]) -> Table:
    """List what was done and what was found."""
    rows = [(name, str(count)) for name, count in saved["faults"].items()]
    counts = {"runs expected": "expected", "found": "found", "twice": "twice", "failed": "failed", "starts": "starts"}
    rows += [(name, str(saved[key])) for name, key in counts.items()]
    return Table(
        title="A study under faults",
        columns=("what", "number"),
        sides="lr",
        rows=tuple(rows),
        note=f"{saved['workers']} workers, {saved['seconds'] / 60:.1f} minutes from the first run on. A start more "
        "than there are runs is one that a fault cut off, or that another worker had taken over.",
    )


def markdown(saved: Mapping[str, Any]) -> str:
    """Write the table as a page of Markdown."""
    made = table(saved)
    head = (
        f"{saved['device']}, {saved['cores']} cores; commit {saved['commit'] or '-'}; python "
        f"{saved['versions']['python']}, optuna {saved['versions']['optuna']}."
    )
    return f"# {made.title}\n\n{head}\n\n{made.to_markdown()}\n"


def main(runs: int = 1000, workers: int = 8, minutes: float = 10.0, folder: Path = Path("runs/soak")) -> None:
    """Disturb a study for some minutes, and print and keep what was found.

    Args:
        runs: how many it has, a multiple of 4.
        workers: how many share it.
        minutes: for how long something is done to it.
        folder: where `soak.json`, `soak.md` and the study go; must hold no study yet.
    """
    at_least("runs", runs, CELLS)
    at_least("workers", workers, 2)
    if runs % CELLS:
        raise SpecError(f"runs has {runs}: must be a multiple of {CELLS}, the number of cells.")
    if (folder / "study").exists():
        raise SpecError(f"{folder} has a study: must hold none yet. Use another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    seconds = 60 * minutes
    each = SHARE * seconds * workers / runs
    soak = Soak(folder=folder / "study", runs=runs, crew=workers, seconds=seconds, each=each, pauses=(2.0, 5.0))
    saved = soak.run()
    write_atomically(folder / "soak.json", json.dumps(saved, indent=1) + "\n")
    write_atomically(folder / "soak.md", markdown(saved))
    Console(highlight=False).print(f"{markdown(saved)}\nKept: {folder / 'soak.json'}", soft_wrap=True, markup=False)
    if saved["found"] != runs or saved["twice"] or saved["failed"]:
        sys.exit(1)


if __name__ == "__main__":
    command(main, "A study whose processes are killed and stopped at random.")
