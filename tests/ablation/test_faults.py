"""Full disks, runs that hang, designs that change and journals that are poisoned: nothing lost, nothing twice."""

import io
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dynops.ablation import Job
from dynops.ablation.workers import _Log
from dynops.errors import StudyError
from dynops.records import RunRecord

Start = Callable[..., Any]
Check = Callable[..., None]
Executions = Callable[[Path, str], Counter[str]]


def end(*started: Any) -> list[str]:
    """Wait for processes that end well, and return what they said."""
    endings = [each.finish() for each in started]
    assert [code for code, _ in endings] == [0] * len(started), endings
    return [output for _, output in endings]


@pytest.fixture
def study_disk(disk: Path) -> Path:
    """A small disk for a study whose runs note elsewhere that they ran."""
    (disk / "executions").symlink_to(disk.parent / "executions")
    return disk


def test_workers_wait_for_a_disk_that_becomes_full(
    study_disk: Path, fill: Any, start: Start, check_nothing_lost_nothing_twice: Check, executions: Executions
) -> None:
    started = [start(study_disk, "--seconds=0.2", "--seeds=4") for _ in range(2)]
    for each in started:
        each.runs(2)
    ballast = fill()
    for each in started:
        each.says("disk is on a full disk (")
    ballast.unlink()
    assert all("trying again in 1 s." in said for said in end(*started))
    check_nothing_lost_nothing_twice(study_disk, 16, faults=1)
    assert set(executions(study_disk, "start").values()) == {1}, "a run was run again"


def test_a_study_waits_for_a_disk_that_is_full_before_it_begins(
    study_disk: Path, fill: Any, start: Start, check_nothing_lost_nothing_twice: Check
) -> None:
    ballast = fill()
    started = start(study_disk)
    started.says("disk is on a full disk ([Errno 28] No space left on device); trying again in 1 s.")
    ballast.unlink()
    end(started)
    check_nothing_lost_nothing_twice(study_disk, 8, faults=1)


def test_workers_whose_logs_are_on_a_full_disk_wait_as_well(
    study_disk: Path, fill: Any, start: Start, check_nothing_lost_nothing_twice: Check, wait_for: Callable[..., None]
) -> None:
    ballast = fill()
    coordinator = start(study_disk, "--workers=2")
    lock = study_disk / "lock"
    wait_for(lambda: lock.exists() and study_disk.stat().st_mtime > lock.stat().st_mtime + 0.5)  # they try again
    ballast.unlink()
    (said,) = end(coordinator)
    assert "Another takes its place" not in said
    check_nothing_lost_nothing_twice(study_disk, 8, faults=1)


def test_a_log_does_without_what_a_full_disk_does_not_take() -> None:
    with pytest.raises(OSError, match="No space left"), open("/dev/full", "w") as full:
        print("words", file=full)
    with io.TextIOWrapper(_Log("/dev/full", "w"), line_buffering=True) as log:
        print("words", file=log)


def test_a_run_that_hangs_is_taken_over(
    tmp_path: Path, start: Start, check_nothing_lost_nothing_twice: Check, executions: Executions
) -> None:
    options = ("--moment=hangs", "--number=2", "--seconds=0.1", "--seeds=3")
    (said,) = end(start(tmp_path, "--workers=2", *options))
    assert "ended with status 4" in said
    assert "Another takes its place." in said
    logs = "".join(path.read_text() for path in tmp_path.glob("workers/*.log"))
    assert "s and counts as hung; it was here:" in logs
    assert "in behave" in logs, "the traceback says where it hangs"
    check_nothing_lost_nothing_twice(tmp_path, 12, faults=1)
    assert sorted(executions(tmp_path, "start").values()) == [1] * 11 + [2]


@pytest.mark.parametrize("moment", ["is silent", "gets on"])
def test_a_long_run_does_not_count_as_hung(
    tmp_path: Path, start: Start, executions: Executions, moment: str, check_nothing_lost_nothing_twice: Check
) -> None:
    (said,) = end(start(tmp_path, f"--moment={moment}", "--number=1"))
    assert "counts as hung" not in said
    assert sum(executions(tmp_path, "start").values()) == 8
    check_nothing_lost_nothing_twice(tmp_path, 8)


def test_seeds_are_added_while_others_work(
    tmp_path: Path, start: Start, check_nothing_lost_nothing_twice: Check, executions: Executions
) -> None:
    started = [start(tmp_path, "--seconds=0.3") for _ in range(2)]
    for each in started:
        each.runs()
    end(*started, start(tmp_path, "--seconds=0.1", "--seeds=4"))
    check_nothing_lost_nothing_twice(tmp_path, 16, faults=1)
    assert set(executions(tmp_path, "start").values()) == {1}, "a point was run twice"


@pytest.mark.parametrize(("change", "what"), [("base", "cells"), ("factor", "cells, factors")])
def test_another_design_is_refused_while_others_work(
    tmp_path: Path,
    start: Start,
    check_nothing_lost_nothing_twice: Check,
    executions: Executions,
    change: str,
    what: str,
) -> None:
    started = [start(tmp_path, "--seconds=0.3") for _ in range(2)]
    for each in started:
        each.runs()
    before = (tmp_path / "records.jsonl").read_bytes()
    code, said = start(tmp_path, f"--change={change}").finish()
    assert code == 2
    assert f"they differ in {what}: a folder holds one study with one plan." in " ".join(said.split())
    end(*started)
    assert (tmp_path / "records.jsonl").read_bytes().startswith(before)
    check_nothing_lost_nothing_twice(tmp_path, 8, faults=1)
    assert set(executions(tmp_path, "start").values()) == {1}


@pytest.fixture(scope="module")
def killable(own_tests: Callable[[str], ModuleType]) -> ModuleType:
    return own_tests("killable")


@pytest.mark.parametrize("line", ["garbage", '{"some": "thing"}', "[1]", '{"op_code": 99, "worker_id": "other"}'])
def test_a_poisoned_journal_is_named_and_costs_nothing(
    tmp_path: Path, killable: ModuleType, check_nothing_lost_nothing_twice: Check, line: str
) -> None:
    killable.make(killable.record_of).execute(tmp_path)
    journal = tmp_path / "journal.log"
    lines = journal.read_text().splitlines()
    middle = len(lines) // 2
    journal.write_text("\n".join([*lines[:middle], line, *lines[middle:]]) + "\n")
    before = journal.read_bytes(), (tmp_path / "records.jsonl").read_bytes()
    ran: list[Job] = []

    def run(job: Job) -> RunRecord:
        ran.append(job)
        return killable.record_of(job)

    with pytest.raises(StudyError, match=r"journal\.log has a line that is none of Optuna's .*: remove that file"):
        killable.make(run).execute(tmp_path)
    assert (journal.read_bytes(), (tmp_path / "records.jsonl").read_bytes()) == before
    journal.unlink()
    killable.make(run).execute(tmp_path)
    assert not ran
    check_nothing_lost_nothing_twice(tmp_path, 8, faults=1)


@pytest.mark.parametrize("options", [(), ("--seeds=3",)], ids=["the same seeds", "one seed more"])
def test_a_study_goes_on_behind_a_poisoned_journal(
    tmp_path: Path,
    start: Start,
    check_nothing_lost_nothing_twice: Check,
    executions: Executions,
    options: Sequence[str],
) -> None:
    killed = start(tmp_path, "--seconds=0.1", "--moment=in the middle of a run", "--number=4")
    killed.finish()
    journal = tmp_path / "journal.log"
    journal.write_text("garbage\n" + journal.read_text())
    code, said = start(tmp_path, *options).finish()
    assert code == 2
    assert "none of Optuna's" in said
    journal.unlink()
    end(start(tmp_path, *options))
    check_nothing_lost_nothing_twice(tmp_path, 12 if options else 8, faults=2)
    assert set(executions(tmp_path, "end").values()) == {1}, "a finished run was run again"
