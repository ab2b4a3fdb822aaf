"""Short runs, four workers and a random fault every second or two: nothing lost, nothing twice."""

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from dynops.errors import SpecError
from studies import soak

MADE = {
    "faults": {"worker killed": 3, "coordinator killed": 1},
    "expected": 8,
    "found": 8,
    "twice": 0,
    "failed": 0,
    "starts": 11,
    "workers": 4,
    "seconds": 90.0,
    "device": "a processor",
    "cores": 2,
    "versions": {"python": "3", "optuna": "5"},
    "commit": "abc",
}


def test_a_study_survives_a_soak(tmp_path: Path, check_nothing_lost_nothing_twice: Callable[..., None]) -> None:
    multiprocessing.set_forkserver_preload([soak.__name__])
    made = soak.Soak(
        folder=tmp_path / "study", runs=40, crew=4, seconds=14.0, each=0.7, pauses=(1.0, 2.0), start="forkserver"
    )
    found = made.run()
    faults = found["faults"]
    check_nothing_lost_nothing_twice(tmp_path / "study", 40, faults=sum(faults.values()))
    assert (found["found"], found["twice"], found["failed"]) == (40, 0, 0)
    assert faults["coordinator killed"] == 1
    assert min(faults["worker killed"], faults["worker stopped and continued"]) > 0
    assert found["starts"] > 40, "a run was cut off"
    assert json.loads(json.dumps(found)) == found


def test_a_soak_is_told_in_a_table() -> None:
    text = soak.markdown(MADE)
    assert "a processor, 2 cores; commit abc; python 3, optuna 5." in text
    for line in ("| worker killed | 3 |", "| runs expected | 8 |", "| twice | 0 |", "| starts | 11 |"):
        assert line in text.splitlines()
    assert "4 workers, 1.5 minutes from the first run on." in text


def test_what_cannot_be_soaked_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"^runs has 6: must be a multiple of 4, the number of cells\.$"):
        soak.main(runs=6, folder=tmp_path)
    with pytest.raises(SpecError, match=r"^workers has 1: must be an integer of at least 2"):
        soak.main(workers=1, folder=tmp_path)
    (tmp_path / "study").mkdir()
    with pytest.raises(SpecError, match="has a study: must hold none yet"):
        soak.main(folder=tmp_path)
