"""Several processes at work on one study: each point has one accepted record, whoever dies, stops or comes back."""

import importlib.util
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from dynops.ablation import Job, Study, read_study, workers
from dynops.ablation.leases import FolderLeases, Tenure
from dynops.ablation.shared import InFolder
from dynops.errors import SpecError
from dynops.records import RunRecord

MOMENTS = (
    "in the middle of a run",
    "while a point is taken",
    "between result and ledger",
    "between ledger and records",
    "while the journal is written",
)
Start = Callable[..., Any]
Check = Callable[..., None]
Executions = Callable[[Path, str], Counter[str]]


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


killable = _load("killable")
make: Callable[..., Study] = killable.make


def end(*started: Any) -> list[str]:
    """Wait for processes that end well, and return what they said."""
    endings = [each.finish() for each in started]
    assert [code for code, _ in endings] == [0] * len(started), endings
    return [output for _, output in endings]


def processes(folder: Path) -> set[str]:
    return {line.split(" ")[2] for line in (folder / "executions").read_text().splitlines()}


@pytest.mark.parametrize("options", [(), ("--together=true",)])
def test_two_workers_share_a_study(
    tmp_path: Path,
    start: Start,
    check_nothing_lost_nothing_twice: Check,
    executions: Executions,
    options: Sequence[str],
) -> None:
    said = end(*(start(tmp_path, "--seconds=0.1", "--seeds=6", *options) for _ in range(2)))
    check_nothing_lost_nothing_twice(tmp_path, 24)
    assert set(executions(tmp_path, "start").values()) == {1}, "a point was run twice"
    assert len(processes(tmp_path)) == 2, "one worker did all"
    assert all(" 24/24 " in each for each in said), "each shows the whole study"


def test_two_workers_tune_and_compare(
    tmp_path: Path, start: Start, check_nothing_lost_nothing_twice: Check, executions: Executions
) -> None:
    end(*(start(tmp_path, "--seconds=0.1", "--tuned=true") for _ in range(2)))
    check_nothing_lost_nothing_twice(tmp_path, 8)
    check_nothing_lost_nothing_twice(tmp_path / "tuning", 8)
    assert set(executions(tmp_path, "start").values()) == {1}
    assert len(processes(tmp_path)) == 2


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_other_worker_goes_on_after_a_kill(
    tmp_path: Path, start: Start, check_nothing_lost_nothing_twice: Check, executions: Executions, moment: str
) -> None:
    killed = start(tmp_path, "--seconds=0.2", f"--moment={moment}", "--number=2")
    other = start(tmp_path, "--seconds=0.2")
    assert killed.finish()[0] == -signal.SIGKILL
    end(other)
    check_nothing_lost_nothing_twice(tmp_path, 8, faults=1)
    assert set(executions(tmp_path, "end").values()) == {1}, "a finished run was run again"


def test_who_holds_the_last_points_may_die(
    tmp_path: Path, start: Start, check_nothing_lost_nothing_twice: Check
) -> None:
    holder = start(tmp_path, "--seconds=60", "--together=true")
    holder.runs()
    other = start(tmp_path, "--together=true")
    other.runs(6)
    time.sleep(2.0)  # longer than the lease, which the holder renews
    assert other.process.is_alive()
    assert len(read_study(tmp_path)[1]) == 6
    holder.process.kill()
    (said,) = end(other)
    assert "Waiting for 2 runs of other workers." in said
    check_nothing_lost_nothing_twice(tmp_path, 8, faults=1)


def test_the_run_of_a_machine_that_died_is_waited_for_as_long_as_its_lease(
    tmp_path: Path, start: Start, check_nothing_lost_nothing_twice: Check
) -> None:
    holder = start(tmp_path, "--seconds=60", "--host=elsewhere")
    holder.runs()
    holder.process.kill()
    holder.process.join()
    died = time.monotonic()
    (said,) = end(start(tmp_path, "--host=here"))
    assert "Waiting for 1 run of other workers." in said
    assert time.monotonic() - died > 1.0
    check_nothing_lost_nothing_twice(tmp_path, 8, faults=1)


def test_all_may_die(tmp_path: Path, start: Start, check_nothing_lost_nothing_twice: Check) -> None:
    started = [start(tmp_path, "--seconds=0.3") for _ in range(2)]
    for each in started:
        each.runs()
    for each in started:
        each.process.kill()
        each.process.join()
    end(*(start(tmp_path) for _ in range(2)))
    check_nothing_lost_nothing_twice(tmp_path, 8, faults=2)


def test_who_comes_back_after_the_lease_finds_its_point_done(
    tmp_path: Path, start: Start, check_nothing_lost_nothing_twice: Check, executions: Executions
) -> None:
    stopped = start(tmp_path, "--seconds=1")
    stopped.runs()
    stopped.send(signal.SIGSTOP)
    end(start(tmp_path))
    check_nothing_lost_nothing_twice(tmp_path, 8)
    stopped.send(signal.SIGCONT)
    (said,) = end(stopped)
    assert "seed 0: another process was first; its result counts." in said
    check_nothing_lost_nothing_twice(tmp_path, 8, faults=1)
    assert sorted(executions(tmp_path, "end").values()) == [1] * 7 + [2]


def test_who_comes_back_after_the_lease_may_still_be_first(
    tmp_path: Path, start: Start, check_nothing_lost_nothing_twice: Check, executions: Executions
) -> None:
    stopped = start(tmp_path, "--seconds=0.5")
    stopped.runs()
    stopped.send(signal.SIGSTOP)
    time.sleep(2.0)
    other = start(tmp_path, "--seconds=4", "--seeds=2")
    other.runs()
    stopped.send(signal.SIGCONT)
    said = end(stopped, other)
    assert "another process was first" in said[1]
    check_nothing_lost_nothing_twice(tmp_path, 8, faults=1)
    assert sorted(executions(tmp_path, "end").values()) == [1] * 7 + [2]


def test_locks_that_dead_processes_left_are_no_hindrance(
    tmp_path: Path, start: Start, check_nothing_lost_nothing_twice: Check
) -> None:
    for name in ("lock", "journal.log.lock"):
        (tmp_path / name).write_text("")
    end(start(tmp_path))
    check_nothing_lost_nothing_twice(tmp_path, 8, faults=2)


def test_a_point_of_which_processes_die_is_given_up(tmp_path: Path, start: Start) -> None:
    for _ in range(3):
        assert start(tmp_path, "--moment=in the middle of a run", "--number=1").finish()[0] == -signal.SIGKILL
    end(start(tmp_path))
    _, records = read_study(tmp_path)
    (reason,) = (record.reason for record in records if not record.accepted)
    assert reason.startswith("The process that ran it died or hung, 3 times in a row and without a word")
    assert sorted(record.status for record in records) == ["complete"] * 7 + ["failed"]
    end(start(tmp_path, "--retry-failed"))
    assert sum(record.accepted for record in read_study(tmp_path)[1]) == 8


def test_two_coordinators_at_once(
    tmp_path: Path, start: Start, check_nothing_lost_nothing_twice: Check, executions: Executions
) -> None:
    said = end(*(start(tmp_path, "--seconds=0.2", "--seeds=6", "--workers=2") for _ in range(2)))
    check_nothing_lost_nothing_twice(tmp_path, 24, faults=1)
    assert set(executions(tmp_path, "start").values()) == {1}
    assert len(processes(tmp_path)) >= 2
    assert all(" 24/24 " in each for each in said)


def test_a_coordinator_says_that_all_its_workers_died(tmp_path: Path, start: Start) -> None:
    code, said = start(tmp_path, "--workers=2", "--moment=when it joins", "--number=1").finish()
    assert code == 2
    said = " ".join(said.split())
    assert "has no worker left: Worker 1 ended by signal 9," in said
    assert "The same command goes on from here." in said


def test_another_worker_takes_the_place_of_one_that_died(
    tmp_path: Path, start: Start, check_nothing_lost_nothing_twice: Check
) -> None:
    coordinator = start(tmp_path, "--workers=2", "--start=spawn", "--seconds=0.5", "--seeds=8")
    began = time.monotonic()
    while not (tmp_path / "executions").exists() or len(processes(tmp_path)) < 2:
        assert time.monotonic() - began < 120
        time.sleep(0.05)
    for process in processes(tmp_path):
        os.kill(int(process), signal.SIGKILL)
    (said,) = end(coordinator)
    assert said.count("ended by signal 9") == said.count("Another takes its place.") == 2
    check_nothing_lost_nothing_twice(tmp_path, 32, faults=2)
    assert len(processes(tmp_path)) > 2


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_scheduler_end_the_workers(
    tmp_path: Path, start: Start, check_nothing_lost_nothing_twice: Check, asked: signal.Signals
) -> None:
    coordinator = start(tmp_path, "--workers=2", "--seconds=0.5", "--seeds=8")
    began = time.monotonic()
    while not (tmp_path / "executions").exists():
        assert time.monotonic() - began < 120
        time.sleep(0.05)
    time.sleep(1.0)  # the coordinator has seen it
    coordinator.send(asked)
    code, said = coordinator.finish()
    assert code == 130, said
    assert "runs done. The same command goes on from here." in said
    for process in processes(tmp_path):
        with pytest.raises(ProcessLookupError):
            os.kill(int(process), 0)
    assert set(FolderLeases(tmp_path).tenures().values()) <= {Tenure.GIVEN_BACK}
    end(start(tmp_path, "--seeds=8"))
    check_nothing_lost_nothing_twice(tmp_path, 32, faults=1)


def test_a_study_of_closures_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"workers has 2, the study can't be sent to another process .* pass `maker`"):
        make(killable.record_of).execute(tmp_path, workers=2)
    with pytest.raises(SpecError, match="workers has -1: must be an integer of at least 0"):
        make(killable.record_of).execute(tmp_path, workers=-1)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores can't be chosen here")
def test_workers_share_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {2, 3, 4, 5, 6})
    assert [place.cores for place in workers.places(2)] == [(2, 4, 6), (3, 5)]
    assert [place.threads for place in workers.places(2)] == [3, 2]
    assert [place.cores for place in workers.places(7)] == [(2,), (3,), (4,), (5,), (6,), (2,), (3,)]
    assert {place.gpu for place in workers.places(2)} == {None}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [place.gpu for place in workers.places(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert [place.gpu for place in workers.places(3)] == ["4", "7", "4"]


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")])
def test_a_run_without_memory_fails_and_the_study_goes_on(tmp_path: Path, error: Exception) -> None:
    def run(job: Job) -> RunRecord:
        if job.seed == 0:
            raise error
        return killable.record_of(job)

    records = make(run).execute(tmp_path)
    assert sum(record.accepted for record in records) == 4
    reasons = [record.reason.splitlines() for record in records if not record.accepted]
    assert all(lines[0].startswith("Traceback") for lines in reasons)
    assert all(lines[-1].startswith("Out of memory: run this cell on a larger device") for lines in reasons)


@pytest.mark.parametrize("links", [True, False])
def test_the_first_result_of_a_point_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:

        def refuse(*paths: Path) -> None:
            raise PermissionError

        monkeypatch.setattr(os, "link", refuse)
    first, second = (RunRecord(levels={"a": "b"}, seed=0, status="complete", metrics={"x": x}) for x in (0.1, 0.2))
    assert InFolder(tmp_path).keep(first)
    assert not InFolder(tmp_path).keep(second)
    assert InFolder(tmp_path).keep(first), "it is its own result"
    (kept,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert RunRecord.from_json(kept.read_text()) == first
