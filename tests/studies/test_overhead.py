"""The study of Lightning's cost times two loops that do the same, and says what it found."""

import json
from pathlib import Path

import pytest

from dynops.errors import SpecError
from studies import overhead

RESULT = Path(overhead.__file__).parent / "results" / "overhead" / "overhead.json"


def test_both_loops_are_timed_in_every_epoch_but_the_first() -> None:
    seconds = overhead.measure(overhead.experiment(width=4, epochs=3))
    assert [len(each) for each in seconds.values()] == [2, 2]
    assert min(*seconds["lightning"], *seconds["bare"]) > 0


def test_loops_that_learn_differently_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "bare", lambda trained: iter((1.0, 1.0)))
    message = r"^a bare loop has loss 1\.0 in epoch 1, `train` has .*: must be equal, as both do the same\.$"
    with pytest.raises(overhead.OverheadError, match=message):
        overhead.measure(overhead.experiment(width=4, epochs=2))


def test_ratios_are_taken_round_by_round() -> None:
    saved = {
        "lightning": [1.0, 2.2, 3.3, 4.4],
        "bare": [1.0, 2.0, 3.0, 4.0],
        "steps": 100,
        "device": "a processor",
        "versions": {"torch": "2", "lightning": "3"},
        "commit": "abc",
    }
    text = overhead.summary(saved)
    assert "A bare loop takes 25.0 ms of the processor a step" in text
    assert "`train` takes 1.100 [1.025, 1.100] of that" in text
    assert "4 epochs in turns; a processor; torch 2, lightning 3; commit abc." in text


def test_a_result_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overhead.main(rounds=4, width=4, threads=1, folder=tmp_path)
    saved = json.loads((tmp_path / "overhead.json").read_text())
    assert len(saved["lightning"]) == len(saved["bare"]) == 4
    assert saved["steps"] == 31
    assert "1 threads" in saved["device"]
    assert overhead.summary(saved).splitlines()[0] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 3}, r"^rounds has 3: must be at least 4, for quartiles\.$"),
        ({"threads": 0}, "^threads has 0: must be an integer of at least 1"),
    ],
)
def test_too_little_is_refused(tmp_path: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        overhead.main(folder=tmp_path, **options)
    assert not (tmp_path / "overhead.json").exists()


def test_the_kept_result_is_complete() -> None:
    saved = json.loads(RESULT.read_text())
    assert len(saved["bare"]) >= 10
    assert saved["commit"]
    assert saved["device"]
    assert 5 < 1000 * sorted(saved["bare"])[len(saved["bare"]) // 2] / saved["steps"] < 20
