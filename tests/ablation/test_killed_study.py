"""A study whose process is killed, for real, loses nothing and counts nothing twice."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from dynops.ablation import read_study

PROGRAM = Path(__file__).with_name("killable.py")
POINTS = 8
MOMENTS = (
    "in the middle of a run",
    "between result and ledger",
    "between ledger and records",
    "while a record is written",
    "while the journal is written",
    "while a point is taken",
    "between records and TensorBoard",
)


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, str(PROGRAM), str(folder), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def check_nothing_lost_nothing_twice(folder: Path) -> None:
    plan, records = read_study(folder)
    points = Counter(record.point for record in records if record.accepted)
    assert len(points) == POINTS
    assert set(points.values()) == {1}
    journal = str(folder / "journal.log")
    storage = JournalStorage(JournalFileBackend(journal, lock_obj=JournalFileOpenLock(journal)))
    trials = optuna.load_study(study_name=plan.name, storage=storage).trials
    completed = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
    assert sorted(trial.user_attrs["point"] for trial in completed) == sorted(points)
    assert not [t for t in trials if t.state in (optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.WAITING)]
    values = {record.point: record.metrics["accuracy"] for record in records}
    for trial in completed:
        assert trial.value == values[trial.user_attrs["point"]]
        assert set(trial.params) == {"kernel", "window"}


def executions(folder: Path, what: str) -> Counter[str]:
    lines = (folder / "executions").read_text().splitlines()
    return Counter(line.split(" ")[1] for line in lines if line.startswith(what))


@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_study_goes_on_after_a_kill(tmp_path: Path, moment: str, number: int) -> None:
    code, output = finish(start(tmp_path, f"--moment={moment}", f"--number={number}"))
    assert code == -signal.SIGKILL, output
    code, output = finish(start(tmp_path))
    assert code == 0, output
    check_nothing_lost_nothing_twice(tmp_path)
    assert set(executions(tmp_path, "end").values()) == {1}, "a finished run was run again"
    again = 1 if moment == "in the middle of a run" else 0
    assert sum(executions(tmp_path, "start").values()) == POINTS + again


def test_a_study_that_is_killed_again_and_again_ends(tmp_path: Path) -> None:
    for number, moment in enumerate(MOMENTS):
        code, output = finish(start(tmp_path, f"--moment={moment}", f"--number={1 + number % 2}"))
        assert code == -signal.SIGKILL, output
    assert finish(start(tmp_path))[0] == 0
    check_nothing_lost_nothing_twice(tmp_path)
    assert set(executions(tmp_path, "end").values()) == {1}


def test_a_study_that_is_killed_from_outside_ends(tmp_path: Path) -> None:
    moments = random.Random(0)
    for _ in range(4):
        process = start(tmp_path, "--seconds=0.2")
        started = time.monotonic()
        while not (tmp_path / "executions").exists() and time.monotonic() - started < 60:
            time.sleep(0.02)
        time.sleep(moments.uniform(0.0, 0.5))
        process.kill()
        finish(process)
    assert finish(start(tmp_path))[0] == 0
    check_nothing_lost_nothing_twice(tmp_path)


def test_a_finished_study_runs_nothing_again(tmp_path: Path) -> None:
    assert finish(start(tmp_path))[0] == 0
    assert finish(start(tmp_path))[0] == 0
    check_nothing_lost_nothing_twice(tmp_path)
    assert sum(executions(tmp_path, "start").values()) == POINTS


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    process = start(tmp_path, "--seconds=0.3")
    started = time.monotonic()
    while not (tmp_path / "executions").exists() and time.monotonic() - started < 60:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    code, output = finish(process)
    assert code == 130, output
    assert "of 8 runs done. The same command goes on from here." in output
    assert finish(start(tmp_path))[0] == 0
    check_nothing_lost_nothing_twice(tmp_path)
