"""Real training in a worker that is killed: another goes on from the last checkpoint, to the same end."""

import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dynops.ablation import read_study
from dynops.records import RunRecord
from dynops.training import checkpoint

Start = Callable[..., Any]
Check = Callable[..., None]
Executions = Callable[[Path, str], Counter[str]]
PROGRAM = "trainable.py"
KILLED = "rate=high"


@pytest.fixture
def trainable(own_tests: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    loaded = own_tests("trainable")
    monkeypatch.setattr(checkpoint, "SECONDS", checkpoint.SECONDS)
    monkeypatch.setattr(loaded.leases, "LEASE", loaded.leases.LEASE)
    return loaded


@pytest.fixture
def undisturbed(trainable: ModuleType, tmp_path: Path) -> dict[str, RunRecord]:
    """What the study finds where nothing dies."""
    (tmp_path / "undisturbed").mkdir()
    records = trainable.make(tmp_path / "undisturbed").execute(tmp_path / "undisturbed")
    return {record.point: record for record in records}


def test_a_run_that_was_killed_in_an_epoch_ends_elsewhere_as_if_it_had_not_been(
    tmp_path: Path,
    trainable: ModuleType,
    undisturbed: dict[str, RunRecord],
    start: Start,
    check_nothing_lost_nothing_twice: Check,
    executions: Executions,
) -> None:
    folder = tmp_path / "study"
    killed = start(folder, f"--step={trainable.STEPS + 2}", program=PROGRAM)
    killed.runs()
    other = start(folder, program=PROGRAM)
    assert killed.finish()[0] == -signal.SIGKILL, "it dies in its second epoch"
    code, said = other.finish()
    assert code == 0, said
    check_nothing_lost_nothing_twice(folder, 2, faults=1)
    starts, epochs = executions(folder, "start"), executions(folder, "epoch")
    assert sorted(starts.values()) == [1, 2]
    assert set(epochs.values()) == {trainable.EPOCHS}, "no epoch is run again"
    lines = [line.split(" ") for line in (folder / "executions").read_text().splitlines()]
    by_other = [what for what, point, process in lines if KILLED in point and process == str(other.process.pid)]
    assert by_other == ["start", *["epoch"] * (trainable.EPOCHS - 1)], "it goes on from the checkpoint"
    for record in read_study(folder)[1]:
        expected = undisturbed[record.point]
        assert record.metrics == expected.metrics
        assert record.history == expected.history
        assert record.spec == expected.spec
        assert record.parameters == expected.parameters


def children(process: int) -> list[int]:
    """The processes that a process started, but those that look after its semaphores."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(each) for each in found if "spawn_main" in Path(f"/proc/{each}/cmdline").read_text()]


def ended(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the processes of a process can't be listed here")
def test_the_processes_of_a_run_on_two_devices_end_with_their_worker_and_one_device_goes_on(
    tmp_path: Path,
    undisturbed: dict[str, RunRecord],
    start: Start,
    check_nothing_lost_nothing_twice: Check,
    executions: Executions,
    wait_for: Callable[[Callable[[], bool]], None],
) -> None:
    folder = tmp_path / "study"
    worker = start(folder, "--devices=2", "--deaf", program=PROGRAM)
    worker.runs()
    wait_for(lambda: any(folder.glob("runs/*/*/last.ckpt")))  # the second epoch is under way
    started = children(worker.process.pid)
    assert len(started) == 2
    worker.process.kill()
    worker.process.join()
    wait_for(lambda: all(ended(each) for each in started))
    code, said = start(folder, program=PROGRAM).finish()
    assert code == 0, said
    check_nothing_lost_nothing_twice(folder, 2, faults=1)
    records = read_study(folder)[1]
    for record in records:
        expected = undisturbed[record.point]
        assert record.metrics == pytest.approx(expected.metrics, rel=1e-3, abs=3e-3)
        for ours, theirs in zip(record.history, expected.history, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3, abs=3e-3)
