"""A study whose cells run all their seeds at once: the same records, whatever fails or is interrupted."""

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dynops.ablation import Job, Study, read_study, worker
from dynops.ablation.ledger import Ledger
from dynops.ablation.shared import InFolder
from dynops.records import RunRecord

CELLS = ["static,small", "static,large", "pixel,small", "pixel,large"]


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


killable = _load("killable")


class Killed(BaseException):
    """Ends a process, as nobody catches it."""


class Runner:
    """Runs jobs together, and keeps which."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[int]]] = []

    def __call__(self, jobs: Sequence[Job]) -> list[RunRecord]:
        (cell,) = {job.folder.parent.name for job in jobs}
        self.calls.append((cell, [job.seed for job in jobs]))
        for job in jobs:
            job.on_epoch({"epoch": 1.0, "loss": 1.0})
        return self.records(jobs)

    def records(self, jobs: Sequence[Job]) -> list[RunRecord]:
        return [killable.record_of(job) for job in jobs]


def make(runner: Any, **changes: Any) -> Study:
    return killable.make(lambda job: pytest.fail("seeds are not run alone"), run_together=runner, **changes)


def by_point(records: list[RunRecord]) -> dict[str, RunRecord]:
    return {record.point: record for record in records if record.accepted}


def test_the_seeds_of_a_cell_run_at_once_and_cell_after_cell(tmp_path: Path) -> None:
    runner = Runner()
    records = make(runner).execute(tmp_path)
    assert [seeds for _, seeds in runner.calls] == [[0, 1]] * 4
    seen = [(",".join(record.levels.values()), record.seed) for record in records]
    assert seen == [(cell, seed) for cell in CELLS for seed in (0, 1)]


def test_records_are_those_of_seeds_that_run_alone(tmp_path: Path) -> None:
    alone = killable.make(killable.record_of).execute(tmp_path / "alone")
    together = make(Runner()).execute(tmp_path / "together")
    assert by_point(together) == by_point(alone)
    plans = [replace(read_study(tmp_path / name)[0], registration=None) for name in ("alone", "together")]
    assert plans[0] == plans[1]
    kept = [
        sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("result.json"))
        for name in ("alone", "together")
    ]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 8


def test_a_study_goes_on_together_with_what_is_missing(tmp_path: Path) -> None:
    killable.make(killable.record_of).execute(tmp_path)
    runner = Runner()
    records = make(runner, seeds=range(4)).execute(tmp_path)
    assert [seeds for _, seeds in runner.calls] == [[2, 3]] * 4
    assert len(by_point(records)) == 16
    make(runner, seeds=range(4)).execute(tmp_path)
    assert len(runner.calls) == 4


def test_a_failure_is_one_of_each_seed_and_the_next_cell_goes_on(tmp_path: Path) -> None:
    class Failing(Runner):
        def records(self, jobs: Sequence[Job]) -> list[RunRecord]:
            if "kernel=static,window=large" in str(jobs[0].folder):
                raise ZeroDivisionError("planted")
            return super().records(jobs)

    records = make(Failing()).execute(tmp_path)
    failed = [record for record in records if not record.accepted]
    assert [(record.cell, record.seed) for record in failed] == [
        ("kernel=static,window=large", seed) for seed in (0, 1)
    ]
    assert all("ZeroDivisionError: planted" in record.reason for record in failed)
    runner = Runner()
    again = make(runner).execute(tmp_path, retry_failed=True)
    assert runner.calls == [("kernel=static,window=large", [0, 1])]
    assert len(by_point(again)) == 8


def test_a_record_without_the_outcome_fails_alone(tmp_path: Path) -> None:
    class Partial(Runner):
        def records(self, jobs: Sequence[Job]) -> list[RunRecord]:
            return [killable.record_of(jobs[0]), RunRecord(seed=jobs[1].seed, status="complete")]

    records = make(Partial()).execute(tmp_path)
    assert [record.accepted for record in records] == [True, False] * 4
    assert records[1].reason == "record has metrics []: must hold 'accuracy', the outcome."
    runner = Runner()
    make(runner).execute(tmp_path, retry_failed=True)
    assert [seeds for _, seeds in runner.calls] == [[1]] * 4


@pytest.mark.parametrize("wrong", [lambda records: records[::-1], lambda records: records[:1]])
def test_records_of_other_seeds_are_refused(tmp_path: Path, wrong: Any) -> None:
    class Wrong(Runner):
        def records(self, jobs: Sequence[Job]) -> list[RunRecord]:
            return wrong(super().records(jobs))

    records = make(Wrong()).execute(tmp_path)
    assert not any(record.accepted for record in records)
    assert all("jobs has [0, 1]: must be one record a job, in order." in record.reason for record in records)


def test_an_interrupted_study_keeps_the_cells_that_ended(tmp_path: Path) -> None:
    class Interrupted(Runner):
        def records(self, jobs: Sequence[Job]) -> list[RunRecord]:
            if len(self.calls) == 3:
                raise KeyboardInterrupt
            return super().records(jobs)

    with pytest.raises(KeyboardInterrupt):
        make(Interrupted()).execute(tmp_path)
    assert len(read_study(tmp_path)[1]) == 4
    runner = Runner()
    assert len(by_point(make(runner).execute(tmp_path))) == 8
    assert len(runner.calls) == 2


def kill_before(patched: pytest.MonkeyPatch, step: str, number: int) -> None:
    """End the process before the call of that number, counted from 1."""

    def kill(*arguments: Any) -> None:
        raise Killed

    place: Any = {"write_run": worker, "end": Ledger}.get(step, InFolder)
    patched.setattr(place, step, killable.before_call(number, getattr(place, step), kill))


@pytest.mark.parametrize("step", ["end", "append", "write_run"])
def test_results_of_a_cell_count_wherever_the_process_ends_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with monkeypatch.context() as patched:
        kill_before(patched, step, 4)
        with pytest.raises(Killed):
            make(Runner()).execute(tmp_path)
    runner = Runner()
    records = make(runner).execute(tmp_path)
    assert runner.calls == [("kernel=pixel,window=small", [0, 1]), ("kernel=pixel,window=large", [0, 1])]
    assert len(records) == len(by_point(records)) == 8


def test_a_seed_without_a_result_is_run_again_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        kill_before(patched, "keep", 4)
        with pytest.raises(Killed):
            make(Runner()).execute(tmp_path)
    runner = Runner()
    records = make(runner).execute(tmp_path)
    assert [(cell, seeds) for cell, seeds in runner.calls if len(seeds) == 1] == [("kernel=static,window=large", [1])]
    assert len(runner.calls) == 3
    assert len(records) == len(by_point(records)) == 8
