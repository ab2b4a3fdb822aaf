"""A study: order, failures, resumption, and folders that hold something else."""

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dynops.ablation import Difference, Factor, Fraction, Job, OneFactor, Study, read_study, report
from dynops.ablation.designs import Design
from dynops.errors import RecordError, SpecError, StudyError
from dynops.records import RunRecord


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
record_of: Callable[[Job], RunRecord] = killable.record_of


def failing(cell: str) -> Callable[[Job], RunRecord]:
    def run(job: Job) -> RunRecord:
        if cell in str(job.folder):
            raise ZeroDivisionError(f"planted in {cell}")
        return record_of(job)

    return run


def noting(jobs: list[Job]) -> Callable[[Job], RunRecord]:
    def run(job: Job) -> RunRecord:
        jobs.append(job)
        return record_of(job)

    return run


def test_points_run_block_after_block(tmp_path: Path) -> None:
    records = make(record_of).execute(tmp_path)
    cells = ["static,small", "static,large", "pixel,small", "pixel,large"]
    seen = [(record.seed, ",".join(record.levels.values())) for record in records]
    assert seen == [(seed, cell) for seed in (0, 1) for cell in cells]


def test_each_cell_is_the_base_changed_by_its_levels(tmp_path: Path) -> None:
    study = make(record_of)
    for levels in study.plan().cell_levels():
        operator: Any = study.cell(levels)
        assert operator.window.size == (3 if levels["window"] == "small" else 7)
        assert operator.kernel.signature == (frozenset() if levels["kernel"] == "static" else frozenset("bhw"))
        assert operator.channels == study.base.channels


def test_only_the_first_block_keeps_images(tmp_path: Path) -> None:
    jobs: list[Job] = []
    make(noting(jobs)).execute(tmp_path)
    assert [job.first_block for job in jobs] == [job.seed == 0 for job in jobs]


def test_records_hold_plan_and_results(tmp_path: Path) -> None:
    study = make(record_of)
    returned = study.execute(tmp_path)
    plan, records = read_study(tmp_path)
    assert replace(plan, registration=None) == study.plan()
    assert records == returned


def test_a_failure_keeps_its_traceback_and_the_study_goes_on(tmp_path: Path) -> None:
    records = make(failing("kernel=pixel,window=small")).execute(tmp_path)
    failed = [record for record in records if not record.accepted]
    assert [(record.seed, record.cell) for record in failed] == [(seed, "kernel=pixel,window=small") for seed in (0, 1)]
    assert all("ZeroDivisionError: planted" in record.reason for record in failed)
    assert sum(record.accepted for record in records) == 6


def test_failed_points_are_run_again_if_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(failing("kernel=pixel")).execute(tmp_path)
    assert "4 runs failed. `retry_failed` (--retry-failed) runs what failed again" in capsys.readouterr().out
    jobs: list[Job] = []
    assert len(make(noting(jobs)).execute(tmp_path)) == 8
    assert not jobs, "a failure is not run again without a word"
    records = make(noting(jobs), seeds=range(3)).execute(tmp_path, retry_failed=True)
    assert len(jobs) == 4
    assert all("kernel=pixel" in str(job.folder) for job in jobs)
    assert sum(record.accepted for record in records) == 8, "and nothing else, though four points of seed 2 are missing"
    assert sum(not record.accepted for record in records) == 4
    assert sum(record.accepted for record in make(noting(jobs), seeds=range(3)).execute(tmp_path)) == 12


def test_what_fails_again_is_not_run_for_ever(tmp_path: Path) -> None:
    make(failing("kernel=pixel")).execute(tmp_path)
    for times in (2, 3):
        records = make(failing("kernel=pixel")).execute(tmp_path, retry_failed=True)
        assert sum(not record.accepted for record in records) == 4 * times
    (tmp_path / "journal.log").unlink()
    assert len(make(failing("kernel=pixel")).execute(tmp_path)) == len(records), "the ledger is made anew from records"


def test_a_diverged_run_is_a_result(tmp_path: Path) -> None:
    def run(job: Job) -> RunRecord:
        return RunRecord(seed=job.seed, status="diverged", reason="loss was nan", metrics={"accuracy": 0.1})

    assert all(record.accepted for record in make(run).execute(tmp_path))
    jobs: list[Job] = []
    make(noting(jobs)).execute(tmp_path)
    assert not jobs


def test_a_record_without_the_outcome_is_a_failure(tmp_path: Path) -> None:
    records = make(record_of, outcome="loss").execute(tmp_path)
    assert all("record has metrics ['accuracy']: must hold 'loss', the outcome" in record.reason for record in records)


def test_a_record_is_filed_under_the_point_that_was_run(tmp_path: Path) -> None:
    def run(job: Job) -> RunRecord:
        return RunRecord(levels={"who": "knows"}, seed=99, status="complete", metrics={"accuracy": 0.5})

    records = make(run).execute(tmp_path)
    assert [(record.seed, set(record.levels)) for record in records] == [
        (s, {"kernel", "window"}) for s in [0] * 4 + [1] * 4
    ]


def test_seeds_can_be_added(tmp_path: Path) -> None:
    make(record_of).execute(tmp_path)
    jobs: list[Job] = []
    records = make(noting(jobs), seeds=range(3)).execute(tmp_path)
    assert [job.seed for job in jobs] == [2] * 4
    assert len(records) == 12
    plan, _ = read_study(tmp_path)
    assert plan.seeds == (0, 1, 2)
    assert plan.changes() == ["1 seed was added"]
    assert "**changed after that**: 1 seed was added. Verdicts are exploratory" in report(tmp_path).text
    make(record_of, seeds=range(3)).execute(tmp_path)
    assert read_study(tmp_path)[0] == plan


def test_a_study_without_new_seeds_keeps_its_standing(tmp_path: Path) -> None:
    make(record_of).execute(tmp_path)
    make(record_of).execute(tmp_path)
    assert read_study(tmp_path)[0].changes() == []
    assert "unchanged since" in report(tmp_path).text


def test_seeds_cannot_be_dropped(tmp_path: Path) -> None:
    make(record_of).execute(tmp_path)
    with pytest.raises(StudyError, match=r"has seeds \(0, 1\), asked for are \(0,\): seeds can be added to a study"):
        make(record_of, seeds=(0,)).execute(tmp_path)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"name": "other"}, "name"),
        ({"unit": "raw"}, "unit"),
        ({"base": killable.zoo.involution(group_channels=8)}, "cells"),
        ({"factors": make(record_of).factors[:1]}, "cells, factors"),
    ],
)
def test_a_folder_holds_one_study_with_one_plan(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    make(record_of).execute(tmp_path)
    before = (tmp_path / "records.jsonl").read_bytes()
    with pytest.raises(StudyError, match=f"they differ in {what}: a folder holds one study with one plan"):
        make(record_of, **changes).execute(tmp_path)
    assert (tmp_path / "records.jsonl").read_bytes() == before


def test_a_lost_journal_is_made_anew_from_the_results(tmp_path: Path) -> None:
    records = make(record_of).execute(tmp_path)
    (tmp_path / "journal.log").unlink()
    jobs: list[Job] = []
    assert make(noting(jobs)).execute(tmp_path) == records
    assert not jobs
    assert (tmp_path / "journal.log").exists()


def test_a_result_that_never_reached_the_records_counts(tmp_path: Path) -> None:
    make(record_of).execute(tmp_path)
    path = tmp_path / "records.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-2]) + lines[-1][:30])
    records = make(failing("kernel")).execute(tmp_path)
    assert sum(record.accepted for record in records) == 8


def test_results_survive_without_their_run_folders(tmp_path: Path) -> None:
    make(record_of).execute(tmp_path)
    (tmp_path / "runs").rename(tmp_path.parent / "elsewhere")
    assert sum(record.accepted for record in make(failing("kernel")).execute(tmp_path)) == 8


def test_a_foreign_line_is_named_and_nothing_is_changed(tmp_path: Path) -> None:
    make(record_of).execute(tmp_path)
    path = tmp_path / "records.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], "surprise\n", *lines[3:]]))
    before = path.read_bytes()
    with pytest.raises(RecordError, match="has a foreign line 4"):
        make(record_of).execute(tmp_path)
    assert path.read_bytes() == before


def test_a_first_line_without_a_plan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text(json.dumps({"some": "thing"}) + "\n")
    with pytest.raises(StudyError, match="has a first line that is no plan"):
        make(record_of).execute(tmp_path)


def test_runs_without_records_are_refused(tmp_path: Path) -> None:
    make(record_of).execute(tmp_path)
    (tmp_path / "records.jsonl").unlink()
    with pytest.raises(StudyError, match=r"has runs but no records\.jsonl: restore that file"):
        make(record_of).execute(tmp_path)


def test_a_result_that_was_moved_is_refused(tmp_path: Path) -> None:
    make(record_of).execute(tmp_path)
    lines = (tmp_path / "records.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "records.jsonl").write_text(lines[0])
    cell = tmp_path / "runs" / "kernel=static,window=small"
    (cell / "seed=1" / "result.json").replace(cell / "seed=0" / "result.json")
    with pytest.raises(StudyError, match="it was moved there"):
        make(record_of).execute(tmp_path)


def test_a_torn_result_is_named(tmp_path: Path) -> None:
    make(record_of).execute(tmp_path)
    lines = (tmp_path / "records.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "records.jsonl").write_text(lines[0])
    (tmp_path / "runs" / "kernel=static,window=small" / "seed=0" / "result.json").write_text("{")
    with pytest.raises(StudyError, match=r"result\.json has no whole result .* remove it, and the point is run again"):
        make(record_of).execute(tmp_path)


def test_a_folder_without_a_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"has no records\.jsonl: must be the folder of a study"):
        read_study(tmp_path)


def test_a_contrast_that_does_not_fit_is_refused_before_the_first_run(tmp_path: Path) -> None:
    study = make(record_of, family=(Difference("kernel", "window", "static"),))
    with pytest.raises(SpecError, match="high has 'window': must be one of 'static', 'pixel'"):
        study.execute(tmp_path)
    assert not (tmp_path / "records.jsonl").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": ()}, r"seeds has \(\): must be one or more, all different"),
        ({"seeds": (1, 1)}, r"seeds has \(1, 1\)"),
        ({"seeds": (-1,)}, "seed has -1: must be an integer of at least 0"),
        ({"margin": -1.0}, "margin has -1.0: must not be negative"),
        ({"unit": "percent"}, "unit has 'percent': must be one of 'points', 'raw'"),
        ({"factors": ()}, r"factors has \[\]: must be one or more"),
        ({"factors": (Factor("a", {"only": lambda base: base}),)}, r"factor a has levels \('only',\): must be two"),
        ({"factors": (Factor("a=b", {"x": lambda base: base, "y": lambda base: base}),)}, "must be a word"),
    ],
)
def test_a_plan_says_what_is_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make(record_of, **changes).plan()


@pytest.mark.parametrize("design", [OneFactor(ways=("in",)), Fraction(resolution=3)])
def test_a_part_of_a_factorial_runs_to_its_report(tmp_path: Path, design: Design) -> None:
    bias = Factor("bias", {"without": lambda operator: operator, "with": lambda operator: replace(operator, bias=True)})
    study = make(record_of, design=design, seeds=range(3))
    study = replace(study, factors=(*study.factors, bias))
    records = study.execute(tmp_path)
    cells = {record.cell for record in records}
    assert len(cells) == 4
    assert len(records) == 12
    made = report(tmp_path)
    assert {cell.name for cell in made.effects.cells} == cells
    assert "kernel: pixel - static" in made.text
    aliased = [effect.name for effect in made.effects.effects if effect.aliases]
    assert bool(aliased) == isinstance(design, Fraction)
