"""A small study whose process kills itself at a chosen moment: `python killable.py FOLDER MOMENT NUMBER`.

Each run leaves a line `start POINT` and, when it ends, `end POINT` in FOLDER/executions.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dynops import Dynamic, Static, Window, zoo
from dynops.ablation import Factor, Job, Study, Tuning, leases, worker
from dynops.ablation import workers as coordinator
from dynops.ablation.ledger import Ledger
from dynops.ablation.shared import InFolder, Shared
from dynops.cli import command
from dynops.records import RunRecord

SEEDS = 2
SILENCE = 1.0  # after which a run counts as hung
CHANGES: dict[str, dict[str, Any]] = {
    "": {},
    "base": {"base": zoo.involution(group_channels=8)},
    "factor": {"factors": (Factor("bias", {"with": lambda o: replace(o, bias=True), "without": lambda o: o}),)},
}


def make(run: Callable[[Job], RunRecord], **changes: Any) -> Study:
    """A 2 x 2 study of nothing but its own bookkeeping."""
    settings: dict[str, Any] = {
        "name": "killable",
        "question": "Is anything lost?",
        "base": zoo.involution(),
        "factors": (
            Factor(
                "kernel",
                {
                    "static": lambda operator: replace(operator, kernel=Static()),
                    "pixel": lambda operator: replace(operator, kernel=Dynamic(context="pixel")),
                },
            ),
            Factor("window", {"small": lambda o: replace(o, window=Window(3)), "large": lambda o: o}),
        ),
        "seeds": range(SEEDS),
        "run": run,
    }
    return Study(**(settings | changes))


def record_of(job: Job) -> RunRecord:
    """A result that depends on the cell and the seed alone, but for the process that is its device."""
    value = int(job.spec.fingerprint(), 16) % 1000 / 1000 + job.seed / 1e6
    history = ({"epoch": 1.0, "loss": 1.0, "accuracy": value},)
    return RunRecord(
        seed=job.seed, status="complete", metrics={"accuracy": value}, history=history, device=str(os.getpid())
    )


def die(*arguments: Any) -> None:
    """Die as nobody can catch it."""
    os.kill(os.getpid(), signal.SIGKILL)


def before_call(number: int, function: Callable[..., Any], act: Callable[..., None]) -> Callable[..., Any]:
    """Act before the call of that number, counted from 1."""
    calls = 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            act(*arguments)
        return function(*arguments, **options)

    return counted


def tear(shared: Shared, record: RunRecord) -> None:
    """Write half a line, then die."""
    with open(shared.folder / "records.jsonl", "a") as file:
        file.write(record.to_json()[:50])
    die()


def tear_journal(ledger: Ledger, number: int, record: RunRecord) -> None:
    """Write half a line to Optuna's journal, then die."""
    (journal,) = Path(sys.argv[1]).glob("journal.log")
    with open(journal, "a") as file:
        file.write('{"op_code": 6, "wor')
    die()


def plant(moment: str, number: int) -> None:
    """Make the process die at a moment of its run of that number."""
    if moment == "between result and ledger":
        Ledger.end = before_call(number, Ledger.end, die)
    elif moment == "between ledger and records":
        InFolder.append = before_call(number, InFolder.append, die)
    elif moment == "while a record is written":
        InFolder.append = before_call(number, InFolder.append, tear)
    elif moment == "while the journal is written":
        Ledger.end = before_call(number, Ledger.end, tear_journal)
    elif moment == "while a point is taken":
        Ledger._start = before_call(number, Ledger._start, die)
    elif moment == "when it joins":
        worker.Worker._join = before_call(number, worker.Worker._join, die)
    elif moment == "between records and TensorBoard":
        worker.write_run = before_call(number, worker.write_run, die)


def behave(moment: str, job: Job, folder: Path) -> None:
    """Do in a run what the moment says."""
    if moment == "in the middle of a run":
        die()
    elif moment == "hangs" and not (folder / "hung").exists():
        (folder / "hung").touch()
        job.alive()
        time.sleep(600)
    elif moment == "is silent":
        time.sleep(2 * SILENCE)
    elif moment == "gets on":
        for _ in range(20):
            job.alive()
            time.sleep(SILENCE / 10)


def note(folder: Path, what: str) -> None:
    """Add a line to the executions in one piece."""
    with open(folder / "executions", "a") as file:
        file.write(what + "\n")


def build(
    place: str,
    moment: str = "never",
    number: int = 0,
    seconds: float = 0.0,
    seeds: int = SEEDS,
    together: bool = False,
    tuned: bool = False,
    change: str = "",
    host: str | None = None,
) -> Study:
    """The study, in a process that dies at the moment."""
    leases.LEASE = 1.5  # none of these runs is silent for longer, unless it was stopped
    leases.SILENCE = SILENCE
    plant(moment, number)
    if host is not None:
        leases._host = lambda: host
    folder = Path(place)
    runs = 0

    def run(job: Job) -> RunRecord:
        nonlocal runs
        runs += 1
        note(folder, f"start {job.folder} {os.getpid()}")
        time.sleep(seconds)
        if runs == number:
            behave(moment, job, folder)
        if moment == "fails" and not (folder / "mended").exists():
            raise ZeroDivisionError("planted")
        note(folder, f"end {job.folder} {os.getpid()}")
        return record_of(job)

    def run_together(jobs: Sequence[Job]) -> list[RunRecord]:
        return [run(job) for job in jobs]

    bias = Factor("bias", {"with": lambda o: replace(o, bias=True), "without": lambda o: replace(o, bias=False)})
    return make(
        run,
        **CHANGES[change],
        seeds=range(seeds),
        run_together=run_together if together else None,
        tuning=Tuning(factor=bias, held_out=lambda operator: operator, seeds=(99,)) if tuned else None,
    )


def main(
    folder: Path,
    moment: str = "never",
    number: int = 0,
    seconds: float = 0.0,
    seeds: int = SEEDS,
    together: bool = False,
    tuned: bool = False,
    change: str = "",
    workers: int = 1,
    start: str = "forkserver",
    storage: str | None = None,
    retry_failed: bool = False,
    host: str | None = None,
) -> None:
    """Run the study; die at the moment."""
    coordinator.MOST_DEATHS = 1
    coordinator.START = start
    multiprocessing.set_forkserver_preload(["dynops.cli"])
    maker = partial(build, str(folder), moment, number, seconds, seeds, together, tuned, change, host)
    maker().execute(folder, workers, storage=storage, retry_failed=retry_failed, maker=maker)


if __name__ == "__main__":
    # what a shell starts in the background would not hear Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command(main, "A study that can be killed.")
