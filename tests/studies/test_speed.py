"""The speed study times what is right, keeps all rounds, and guards the ratios loosely."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dynops.errors import SpecError
from studies import speed

SMALL = speed.Shape(2, 8, 12, 12, 3, 2)


def test_every_peer_is_timed_in_every_round() -> None:
    timings = list(speed.measure((SMALL,), 4, compiled=False))
    names = [timing.peer for timing in timings]
    assert names == ["dynops", "unfold", "shifted views", "depthwise", "dense 3x3"]
    for timing in timings:
        assert len(timing.forward) == len(timing.both) == 4
        assert min(*timing.forward, *timing.both) > 0


def test_what_computes_something_else_is_not_timed() -> None:
    found = speed.peers(SMALL, compiled=False)

    def wrong(weights: Tensor, x: Tensor) -> Tensor:
        return 1.001 * found["dynops"].apply(weights, x)

    planted = found | {"unfold": found["unfold"]._replace(apply=wrong)}
    message = r"^unfold has an error of 1\.0e-03 against dynops: must be below 1e-5\.$"
    with pytest.raises(speed.SpeedError, match=message):
        speed.check(planted, torch.randn(SMALL[:4]))


def test_ratios_are_taken_round_by_round() -> None:
    timings = [
        speed.Timing(shape=SMALL, peer="dynops", forward=[1.0, 2.0, 3.0, 4.0], both=[2.0] * 4),
        speed.Timing(shape=SMALL, peer="depthwise", forward=[2.0, 4.0, 6.0, 8.0], both=[8.0] * 4),
    ]
    assert speed.rows(timings)[0] == [
        "2,8,12,12,3,2",
        "dynops",
        "2500.00",
        "0.50 [0.50, 0.50]",
        "2000.00",
        "0.25 [0.25, 0.25]",
    ]
    plain = json.loads(json.dumps({"timings": [asdict(timing) for timing in timings]}))
    assert "| 2,8,12,12,3,2 | dynops | 2500.00 | 0.50 [0.50, 0.50] |" in speed.markdown(plain)


def test_too_few_rounds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"^rounds has 3: must be at least 4, for quartiles\.$"):
        speed.main(rounds=3, folder=tmp_path)


def test_no_speed_is_printed_when_tests_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test_failing.py").write_text("def test_failing() -> None:\n    assert False\n")
    monkeypatch.setattr(speed, "TESTS", tmp_path)
    with pytest.raises(speed.SpeedError, match="tests has failures, so no speed is measured"):
        speed.main(folder=tmp_path / "speed")
    assert not (tmp_path / "speed").exists()


def test_sums_in_c_stay_faster_than_shifted_views() -> None:
    timings = {timing.peer: timing for timing in speed.measure((speed.Shape(4, 64, 28, 28, 7, 4),), 5, compiled=False)}
    own, views = timings["dynops"], timings["shifted views"]
    # measured: 5 times forward, 15 times with its gradients
    assert min(views.forward) > 2 * min(own.forward)
    assert min(views.both) > 4 * min(own.both)
