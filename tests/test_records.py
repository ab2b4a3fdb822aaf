"""Run records: what goes to disk comes back, whatever a kill leaves behind."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from dynops.errors import RecordError
from dynops.records import RunRecord, append_record, cell_name, point_id, read_records, write_atomically

RECORD = RunRecord(
    levels={"kernel": "pixel", "channels": "grouped", "a": "z"},
    seed=3,
    status="complete",
    metrics={"accuracy": 0.75, "loss": 1e-9},
    history=({"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}),
    parameters=12,
    macs=10**12,
    seconds=1.5,
    step_milliseconds=0.1,
    peak_memory=2**40,
    device="CPU é",
    versions={"torch": "2.11"},
    commit="abc+",
    spec={"type": "Operator", "window": {"size": [3, 5]}},
    images={"inputs": [[[[0.5]]]], "kernels": {"stage1": [[[1.0]]]}},
)


def some(count: int) -> list[RunRecord]:
    return [replace(RECORD, seed=seed) for seed in range(count)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.jsonl"


def test_record_comes_back_from_one_line_of_json() -> None:
    text = RECORD.to_json()
    assert "\n" not in text
    for again in (RunRecord.from_json(text), RunRecord.from_json(text.encode())):
        assert again == RECORD
        assert asdict(again) == asdict(RECORD)


def test_levels_keep_their_order() -> None:
    again = RunRecord.from_json(RECORD.to_json())
    assert list(again.levels) == ["kernel", "channels", "a"]
    assert again.cell == RECORD.cell == "kernel=pixel,channels=grouped,a=z" == cell_name(RECORD.levels)


def test_point_is_the_cell_and_the_seed_in_any_order() -> None:
    turned = {"a": "z", "channels": "grouped", "kernel": "pixel"}
    assert RECORD.point == point_id(turned, 3) == replace(RECORD, metrics={}, seconds=9.0).point
    others = {point_id(turned, 4), point_id(turned | {"a": "y"}, 3), point_id({}, 3)}
    assert len(others | {RECORD.point}) == 4


def test_record_needs_a_seed_and_a_status_only() -> None:
    again = RunRecord.from_json('{"seed":0,"status":"failed"}')
    assert again == RunRecord(seed=0, status="failed")
    assert again.cell == ""
    assert [replace(again, status=each).accepted for each in ("complete", "diverged", "failed")] == [True, True, False]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_metric_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(RecordError, match=rf"^loss has {value}: must be finite\. Score a run that diverges\.$"):
        replace(RECORD, metrics={"accuracy": 0.5, "loss": value})
    line = '{"seed":0,"status":"complete","metrics":{"loss":NaN}}'
    with pytest.raises(RecordError, match=r"^loss has nan: must be finite"):
        RunRecord.from_json(line)


def test_unknown_status_is_refused() -> None:
    with pytest.raises(RecordError, match=r"^status has 'done': must be one of complete, diverged, failed, pruned\.$"):
        RunRecord(seed=0, status="done")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", r"^line has '': must be JSON \("),
        ('{"seed":0', r"^line has '\{\"seed\":0': must be JSON \("),
        (b"\xff\xfe", r"^line has b'\\xff\\xfe': must be JSON \("),
        ("[1]", r"^line has \[1\]: must hold the fields of a run record: commit, device, .*, versions\.$"),
        ('{"seed":0}', r"^line has \{'seed': 0\}: must hold the fields of a run record"),
        ('{"seed":0,"status":"failed","colour":1}', r"^line has .*'colour': 1\}: must hold the fields"),
        ('{"seed":0,"status":"failed","metrics":[1]}', r"^line has .*: a field is of the wrong kind \("),
        ('{"seed":0,"status":"failed","metrics":{"a":"b"}}', r"^line has .*: a field is of the wrong kind \("),
        ('{"seed":0,"status":"failed","history":5}', r"^line has .*: a field is of the wrong kind \("),
    ],
)
def test_line_that_is_no_record_is_refused(line: str | bytes, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        RunRecord.from_json(line)


def test_appended_records_are_read_in_order(path: Path) -> None:
    for record in some(3):
        append_record(path, record)
    assert read_records(path) == some(3)
    assert path.read_bytes().count(b"\n") == 3


@pytest.mark.parametrize("keep", [1, 20, -1])
def test_torn_last_line_is_passed_over_and_replaced(path: Path, keep: int) -> None:
    first, second, third = some(3)
    append_record(path, first)
    whole = path.read_bytes()
    path.write_bytes(whole + second.to_json().encode()[:keep])
    assert read_records(path) == [first]
    append_record(path, third)
    assert read_records(path) == [first, third]
    assert path.read_bytes() == whole + third.to_json().encode() + b"\n"


def test_file_of_a_torn_line_alone_starts_anew(path: Path) -> None:
    path.write_bytes(b'{"seed":')
    assert read_records(path) == []
    append_record(path, RECORD)
    assert read_records(path) == [RECORD]


def test_first_lines_may_hold_something_else(path: Path) -> None:
    path.write_text("a plan\n")
    assert read_records(path, skip=1) == []
    append_record(path, RECORD)
    assert read_records(path, skip=1) == [RECORD]
    assert path.read_text().startswith("a plan\n")


@pytest.mark.parametrize("foreign", ["", "garbage", '{"seed": 1}'])
def test_foreign_line_in_the_middle_is_named_by_its_number(path: Path, foreign: str) -> None:
    lines = ["a plan", RECORD.to_json(), foreign, RECORD.to_json()]
    path.write_text("".join(line + "\n" for line in lines))
    before = path.read_bytes()
    message = r"records\.jsonl has a foreign line 3: line has .* Remove that line, or restore the file\.$"
    with pytest.raises(RecordError, match=message):
        read_records(path, skip=1)
    assert path.read_bytes() == before


def test_file_is_replaced_with_its_folder_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "report.md"
    for text in ("first é\n", "second\n"):
        write_atomically(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert os.listdir(path.parent) == ["report.md"]


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_kill_before_the_end_leaves_the_old_text(path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    write_atomically(path, "old")
    monkeypatch.setattr(os, step, killed)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    monkeypatch.undo()
    write_atomically(path, "new")
    assert path.read_text() == "new"


def test_text_is_whole_on_disk_before_it_takes_the_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def noting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any) -> Any:
            seen.append(name)
            if name == "replace":
                assert Path(arguments[0]).read_text() == "new"
            return call(*arguments)

        return noted

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, noting(name, getattr(os, name)))
    write_atomically(path, "new")
    assert seen == ["fsync", "replace"]


def test_record_is_plain_data() -> None:
    assert json.loads(RECORD.to_json())["spec"] == {"type": "Operator", "window": {"size": [3, 5]}}
