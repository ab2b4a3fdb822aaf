"""A study whose process is killed, for real, loses nothing and counts nothing twice."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
Start = Callable[..., Any]
Check = Callable[..., None]
Executions = Callable[[Path, str], Counter[str]]


@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_study_goes_on_after_a_kill(
    tmp_path: Path,
    start: Start,
    check_nothing_lost_nothing_twice: Check,
    executions: Executions,
    moment: str,
    number: int,
) -> None:
    code, output = start(tmp_path, f"--moment={moment}", f"--number={number}").finish()
    assert code == -signal.SIGKILL, output
    code, output = start(tmp_path).finish()
    assert code == 0, output
    check_nothing_lost_nothing_twice(tmp_path, POINTS, faults=1)
    assert set(executions(tmp_path, "end").values()) == {1}, "a finished run was run again"
    again = 1 if moment == "in the middle of a run" else 0
    assert sum(executions(tmp_path, "start").values()) == POINTS + again


def test_a_study_that_is_killed_again_and_again_ends(
    tmp_path: Path, start: Start, check_nothing_lost_nothing_twice: Check, executions: Executions
) -> None:
    for number, moment in enumerate(MOMENTS):
        code, output = start(tmp_path, f"--moment={moment}", f"--number={1 + number % 2}").finish()
        assert code == -signal.SIGKILL, output
    assert start(tmp_path).finish()[0] == 0
    check_nothing_lost_nothing_twice(tmp_path, POINTS, faults=len(MOMENTS))
    assert set(executions(tmp_path, "end").values()) == {1}


def test_a_study_that_is_killed_from_outside_ends(
    tmp_path: Path, start: Start, check_nothing_lost_nothing_twice: Check
) -> None:
    moments = random.Random(0)
    for _ in range(4):
        killed = start(tmp_path, "--seconds=0.2", "--seeds=8")
        killed.runs(2)  # the first one takes up what the last kill cut off
        time.sleep(moments.uniform(0.0, 0.5))
        killed.process.kill()
        assert killed.finish()[0] == -signal.SIGKILL
    assert start(tmp_path, "--seeds=8").finish()[0] == 0
    check_nothing_lost_nothing_twice(tmp_path, 32, faults=4)


def test_a_finished_study_runs_nothing_again(
    tmp_path: Path, start: Start, check_nothing_lost_nothing_twice: Check, executions: Executions
) -> None:
    assert start(tmp_path).finish()[0] == 0
    assert start(tmp_path).finish()[0] == 0
    check_nothing_lost_nothing_twice(tmp_path, POINTS)
    assert sum(executions(tmp_path, "start").values()) == POINTS


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, start: Start, check_nothing_lost_nothing_twice: Check) -> None:
    interrupted = start(tmp_path, "--seconds=0.3")
    interrupted.runs()
    interrupted.send(signal.SIGINT)
    code, output = interrupted.finish()
    assert code == 130, output
    assert "of 8 runs done. The same command goes on from here." in output
    assert start(tmp_path).finish()[0] == 0
    check_nothing_lost_nothing_twice(tmp_path, POINTS, faults=1)
