"""What running a study takes is measured with studies that run, and told in tables."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from dynops.errors import SpecError
from studies.many_runs import overhead, scale, workers
from studies.many_runs import study as many_runs

SIZES = [
    {
        "size": size,
        "seconds": size / 100,
        "peak": 500 << 20,
        "journal": size << 10,
        "report_seconds": 5.0,
        "report_peak": 600 << 20,
    }
    for size in (100, 1000)
]
SAVED = {
    "device": "a processor",
    "versions": {"torch": "2"},
    "commit": "abc",
    "points": {
        "scale 1000": SIZES[1],
        "scale 100": SIZES[0],
        "overhead": {"study": [[1.1, 2.2], [2.0, 4.0], [3.9, 7.8]], "bare": [[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]},
        "workers": {
            "runs": 10,
            "turns": {
                "1": [{"seconds": 40.0, "running": 36.0}] * 2,
                "2": [{"seconds": 25.0, "running": 20.0}] * 2,
            },
        },
    },
}


def test_a_study_whose_runs_take_no_time_is_run_and_reported(tmp_path: Path) -> None:
    found = scale.measure(100, tmp_path)
    assert found["size"] == 100
    assert min(found.values()) > 0
    assert found["peak"] > 50 << 20
    assert not list(tmp_path.iterdir())


def test_simulated_runs_gain_with_the_first_factor_and_are_the_same_each_time(tmp_path: Path) -> None:
    first, again = (scale.study(200).execute(tmp_path / name) for name in "ab")
    assert [record.metrics for record in first] == [record.metrics for record in again]
    means = [
        sum(record.metrics["accuracy"] for record in first if record.levels["first"] == level) / 50 for level in "03"
    ]
    assert means[1] - means[0] == pytest.approx(3 * scale.GAIN, abs=scale.GAIN)


def test_study_and_bare_loop_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "WIDTH", 4)
    found = overhead.measure(2, 1, tmp_path)
    assert [len(found[name]) for name in ("study", "bare")] == [2, 2]
    assert min(second for turns in found.values() for turn in turns for second in turn) > 0
    assert not list(tmp_path.iterdir())


def test_workers_are_timed_from_their_first_run_to_their_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "NUMBERS", (1,))
    monkeypatch.setattr(workers, "WIDTH", 4)
    found = workers.measure(1, 2, 1, tmp_path)
    (turn,) = found["turns"]["1"]
    assert 0 < turn["running"] < turn["seconds"]
    assert not list(tmp_path.iterdir())


def test_the_study_of_the_workers_can_be_sent_to_them(tmp_path: Path) -> None:
    study = pickle.loads(pickle.dumps(workers.study(4, 1, tmp_path)))
    assert len(study.cells()) * len(study.seeds) == 4


def test_tables_say_what_was_measured() -> None:
    text = many_runs.markdown(SAVED)
    assert "| 100 | 1.0 | 10.00 | 500 | 0.1 | 5.0 | 600 |\n| 1,000 | 10.0 | 10.00 | 500 | 1.0 | 5.0 | 600 |" in text
    assert "The time grows with the runs to the power of 1.00, that of the report of 0.00." in text
    assert "| processor | 2.000 | 2.000 | 1.100 [1.000, 1.300] |" in text
    assert "| clock | 4.000 | 4.000 | 1.100 [1.000, 1.300] |" in text
    assert "| all | 900 | 1,440 | 1.60 [1.60, 1.60] |" in text
    assert "| without start and end | 1,000 | 1,800 | 1.80 [1.80, 1.80] |" in text
    assert "a processor; commit abc; torch 2." in text


def test_what_was_measured_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def measure(size: int, folder: Path) -> dict[str, Any]:
        counted.append(size)
        return {**SIZES[0], "size": size}

    monkeypatch.setattr(scale, "measure", measure)
    many_runs.main(parts=("scale",), sizes=(100,), folder=tmp_path)
    many_runs.main(parts=("scale",), sizes=(100, 200), folder=tmp_path)
    assert counted == [100, 200]
    saved = json.loads((tmp_path / "many_runs.json").read_text())
    assert list(saved["points"]) == ["scale 100", "scale 200"]
    assert (tmp_path / "many_runs.md").read_text() == many_runs.markdown(saved)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": (150,)}, r"^sizes has 150: must be a multiple of 100, the number of cells\.$"),
        ({"sizes": (0,)}, r"^sizes has 0: must be a multiple of 100, the number of cells\.$"),
        ({"runs": 3}, r"^runs has 3: must be an even number, as there are two learning rates\.$"),
        ({"rounds": 1}, r"^rounds has 1: must be an integer of at least 2\.$"),
        ({"turns": 1}, r"^turns has 1: must be an integer of at least 2\.$"),
        ({"epochs": 0}, r"^epochs has 0: must be an integer of at least 1\.$"),
    ],
)
def test_what_can_not_be_measured_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        many_runs.main(folder=tmp_path, **options)
    assert not list(tmp_path.iterdir())
