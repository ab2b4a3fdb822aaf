"""The speed study times what is right, goes on where it was, says its losses, and guards the ratios loosely."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor

from dynops import Window
from dynops.errors import SpecError, StudyError
from dynops.ops import gather
from studies.speed import attention, memory, peers, roofline, study, sweeps, tables, timing
from studies.speed.page import write_page
from studies.speed.place import SHAPES, Place, Shape
from studies.speed.plots import figures

SMALL = Place(Shape(2, 8, 12, 12, 3, 2))
QUICK = ("dynops", "unfold", "shifted views", "depthwise", "dense 3x3", "involution layer", "SDPA, masked")
TENTH = [0.1, 0.1, 0.1, 0.1]


def peer(forward: list[float] | str, both: list[float] | str, same: bool = False) -> dict[str, Any]:
    return {"same": same, "forward": forward, "both": both}


def planted() -> dict[str, Any]:
    """What the study keeps, with known times: dynops loses forward to depthwise, at a shape and in half of a sweep."""
    timed = {
        "dynops": peer([2.0, 4.0, 6.0, 8.0], [2.0] * 4, same=True),
        "unfold": peer([20.0] * 4, [40.0] * 4, same=True),
        "depthwise": peer([1.0, 2.0, 3.0, 4.0], [8.0] * 4),
        "flex_attention": peer(TENTH, "no backward on a CPU"),
        "NATTEN": peer("not installed", "not installed"),
    }
    peaks: dict[str, Any] = {name: {"forward": "needs Linux", "both": "needs Linux"} for name in timed}
    peaks["dynops"] = {direction: {"extra": 3 << 20, "held": 2 << 20} for direction in peers.DIRECTIONS}
    shape = {"shape": list(SMALL.shape), "dtype": "float32", "peers": timed}
    points: dict[str, Any] = {"roofline": {"bandwidth": 1e6, "rate": 1e6}}
    points |= {f"shape {SMALL.shape}": shape, f"memory {SMALL.shape}": peaks}
    for value in sweeps.VALUES["size"]:
        own, base = [3e-6 * value**2] * 4, [1e-3] * 4
        pair = {"dynops": peer(own, own, same=True), "depthwise": peer(base, base)}
        swept = list(sweeps.shape_at("size", value))
        points[f"size {value}"] = {"axis": "size", "value": value, "shape": swept, "dtype": "float32", "peers": pair}
    return {
        "device": "a device",
        "versions": {"torch": "2"},
        "commit": "abc",
        "code": "def",
        "settings": {"accelerator": "cpu", "rounds": 4, "dtype": "float32"},
        "points": points,
    }


def test_every_peer_is_timed_in_every_round() -> None:
    timed = study.at_place(SMALL, 4, QUICK)["peers"]
    assert tuple(timed) == QUICK
    for each in timed.values():
        assert len(each["forward"]) == len(each["both"]) == 4
        assert min(*each["forward"], *each["both"]) > 0
    assert [name for name in QUICK if timed[name]["same"]] == ["dynops", "unfold", "shifted views"]


def test_calls_take_turns() -> None:
    order: list[str] = []
    runs: dict[str, Callable[[], Any]] = {name: partial(order.append, name) for name in "ab"}
    found = timing.in_turns(runs, 3, torch.device("cpu"))
    assert {name: len(times) for name, times in found.items()} == {"a": 3, "b": 3}
    counted = order[2 * timing.WARM_UP :]
    assert "".join(counted).replace("a" * timing.MOST_CALLS, "A").replace("b" * timing.MOST_CALLS, "B") == "AB" * 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_peers_agree_in_every_dtype(dtype: torch.dtype) -> None:
    place = SMALL._replace(dtype=dtype)
    peers.check(peers.peers(place, ("dynops", "unfold", "shifted views")), place)


def test_what_computes_something_else_is_not_timed() -> None:
    found = peers.peers(SMALL, ("dynops", "unfold"))
    own: Any = found["dynops"]

    def wrong(weights: Tensor, x: Tensor) -> Tensor:
        return 1.001 * own.apply(weights, x)

    message = r"^unfold has an error of 1\.0e-03 against dynops: must be below 1e-5\.$"
    with pytest.raises(peers.SpeedError, match=message):
        peers.check(found | {"unfold": own._replace(apply=wrong)}, SMALL)


def test_a_peer_that_cannot_run_says_why() -> None:
    def broken(*inputs: Tensor) -> Tensor:
        raise RuntimeError("no kernel for this device\nand a long trace")

    failing = peers.Peer(broken, (SMALL.features(),))
    reason = "RuntimeError: no kernel for this device"
    assert peers.calls("NATTEN", failing) == {"forward": reason, "both": reason}
    assert peers.calls("NATTEN", "not installed") == {"forward": "not installed", "both": "not installed"}
    peers.check({"dynops": peers.BUILDERS["dynops"](SMALL), "unfold": failing._replace(same=True)}, SMALL)
    with pytest.raises(RuntimeError, match="no kernel for this device"):
        peers.calls("dynops", failing)
    assert peers.peers(Place(SHAPES[0]), ("SDPA, masked",)) == {"SDPA, masked": "a mask of 3136x3136 is too large"}


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch.compile's own
def test_attention_without_gradients_is_timed_forward() -> None:
    made = attention.flexible(SMALL)
    assert isinstance(made, attention.Attention)
    assert made.no_backward == "no backward on a CPU"
    found = peers.calls("flex_attention", peers.Peer(torch.exp, (SMALL.features(),), no_backward=made.no_backward))
    assert callable(found["forward"])
    assert found["both"] == "no backward on a CPU"


def test_attention_sees_the_window_of_the_sum() -> None:
    b, _, h, w, k, g = SMALL.shape
    made = attention.masked(SMALL)
    assert isinstance(made, attention.Attention)
    query, key, value = (torch.randn(made.sizes, dtype=torch.float64) for _ in range(3))
    grids = [each.mT.reshape(b, g, 1, -1, h, w) for each in (query, key, value)]
    keys, values = (gather(each, Window(k, border="zeros"))[:, :, 0] for each in grids[1:])  # b g s k h w
    inside = gather(torch.ones_like(grids[0]), Window(k))[:, :, 0, :1]
    scores = (grids[0][:, :, 0].unsqueeze(3) * keys).sum(2, keepdim=True) / made.sizes[-1] ** 0.5
    expected = (scores.masked_fill(inside == 0, -torch.inf).softmax(3) * values).sum(3)
    torch.testing.assert_close(made.apply(query, key, value).mT.reshape(expected.shape), expected)
    own = attention.own(SMALL)
    assert isinstance(own, attention.Attention)
    ours = own.apply(*(each[:, :, 0] for each in grids))
    torch.testing.assert_close(ours[:, :, 0].reshape(expected.shape), expected)


def test_work_is_that_of_the_formula() -> None:
    place = Place(Shape(2, 4, 3, 3, 3, 2), dtype=torch.bfloat16)
    weights, features = 2 * 2 * 9 * 9, 2 * 4 * 9
    forward, backward = roofline.work(place)["both"]
    assert forward == roofline.Work(2 * (weights + 2 * features), 2 * 9 * features)
    assert backward == roofline.Work(2 * (2 * weights + 3 * features), 4 * 9 * features)
    assert roofline.Work(10, 10).seconds(roofline.Roofline(5.0, 1.0)) == 10.0
    assert roofline.Work(10, 10).bound(roofline.Roofline(5.0, 1.0)) == "arithmetic"
    measured = roofline.roofline(torch.device("cpu"), torch.float32, scale=32)
    assert min(measured) > 0


def test_memory_counts_what_a_call_holds_beside_inputs_and_outputs() -> None:
    place = Place(Shape(2, 64, 56, 56, 7, 4))
    found: Any = memory.measure(place, ("dynops", "unfold", "NATTEN"), 1)
    features, windows = 4 * 2 * 64 * 56 * 56, 4 * 2 * 64 * 49 * 56 * 56
    assert found["dynops"]["forward"]["held"] == 2 * features + windows // 16
    assert found["dynops"]["both"]["held"] == 4 * features + 2 * windows // 16
    # the windows and their products, besides the sums; a few bands of pixels
    assert found["unfold"]["forward"]["extra"] == pytest.approx(2 * windows, rel=0.05)
    assert found["unfold"]["both"]["extra"] > 2 * windows
    assert max(found["dynops"][direction]["extra"] for direction in ("forward", "both")) < 3 << 20
    assert isinstance(found["NATTEN"]["forward"], str)


def test_memory_that_ends_is_an_error_and_not_a_number() -> None:
    with pytest.raises(StudyError, match=r"^memory has no peak: the process that measures it was killed\. Free memory"):
        memory.apart(os._exit, 1)


def test_memory_is_not_measured_where_it_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PROCESS", tmp_path)
    assert memory.measure(SMALL, ("dynops",), 1) == {"dynops": {"forward": "needs Linux", "both": "needs Linux"}}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_peer_is_timed_and_weighed_on_a_gpu(dtype: torch.dtype) -> None:
    place = Place(Shape(2, 64, 14, 14, 3, 4), torch.device("cuda"), dtype)
    names = tuple(peers.BUILDERS)
    timed, peaks = study.at_place(place, 4, names)["peers"], memory.measure(place, names, 1)
    for name in names[:-1]:  # NATTEN may be missing
        for direction in peers.DIRECTIONS:
            assert min(timed[name][direction]) > 0, (name, direction, timed[name][direction])
            found: Any = peaks[name][direction]
            assert found["extra"] >= 0 < found["held"]
    assert min(roofline.roofline(place.device, dtype, scale=8)) > 0


def test_a_sweep_changes_one_axis() -> None:
    points = sweeps.points(torch.device("cpu"), torch.float32)
    assert len({str(point) for point in points}) == len(points) == 35
    for point in points:
        changed = [new != old for new, old in zip(point.place.shape, sweeps.CENTRE, strict=True)]
        assert sum(changed) <= (2 if point.axis in ("size", "channels") else 1)
    assert sweeps.shape_at("channels", 16) == Shape(8, 16, 28, 28, 7, 1)


def test_growth_is_the_slope_that_was_planted() -> None:
    taps = {value: [1e-6 * value**2] * 4 for value in sweeps.VALUES["k"]}
    images = {value: [1e-3 * value**1.5] * 4 for value in sweeps.VALUES["batch"]}
    assert sweeps.growth("k", taps) == pytest.approx((1.0, 0.0, 4), abs=1e-6)
    assert sweeps.growth("batch", images) == pytest.approx((1.5, 0.0, 4), abs=1e-6)


def test_tables_show_ratios_round_by_round_reasons_and_losses() -> None:
    text = tables.markdown(planted())
    assert "| 2,8,12,12,3,2 | dynops | yes | 5000.00 | 2.00 [2.00, 2.00] | 2000.00 | 0.25 [0.25, 0.25] |" in text
    assert "| 2,8,12,12,3,2 | flex_attention | no | 100.00 | 0.04 [0.03, 0.09] | no backward on a CPU | - |" in text
    assert "| 2,8,12,12,3,2 | NATTEN | no | not installed | - | not installed | - |" in text
    assert "| 2,8,12,12,3,2 | dynops | 3.0 | 1.50 | 3.0 | 1.50 |" in text
    assert "| 2,8,12,12,3,2 | unfold | needs Linux | - | needs Linux | - |" in text
    assert "| pixels | dynops | 1.00 ± 0.00 | 1.00 ± 0.00 |" in text
    assert "| depthwise | shapes | 1 of 1 | 0 of 1 |" in text
    assert "| depthwise | sweeps | 4 of 6 | 4 of 6 |" in text
    assert "| flex_attention | shapes | 1 of 1 | - |" in text
    # least: 36.9 kB at 1 MB/s, 83 kFLOP at 1 MFLOP/s
    assert "| 2,8,12,12,3,2 | forward | 0.0 | 0 | arithmetic | 41.472 | 5000.000 | 1 % |" in text


def test_figures_and_page_are_made_of_what_was_kept(tmp_path: Path) -> None:
    drawn = figures(planted())
    assert set(drawn) == {"ratios", "memory", "roofline", "sweeps"}
    write_page(tmp_path, planted(), drawn)
    write_page(tmp_path, planted(), drawn)
    assert len(list(tmp_path.rglob("*tfevents*"))) == 3
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"dynops", "depthwise"}


def tiny(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make the whole study one of seconds."""
    (folder / "test_passing.py").write_text("def test_passing() -> None:\n    pass\n")
    monkeypatch.setattr(study, "TESTS", folder)
    monkeypatch.setattr(study, "SHAPES", (SMALL.shape,))
    monkeypatch.setattr(study, "BUILDERS", {name: peers.BUILDERS[name] for name in ("dynops", "depthwise", "NATTEN")})
    monkeypatch.setattr(study, "roofline", partial(roofline.roofline, scale=64))
    monkeypatch.setattr(study, "points", lambda *given: sweeps.points(*given)[:2])
    reasons = {name: dict.fromkeys(peers.DIRECTIONS, "not measured") for name in study.BUILDERS}
    monkeypatch.setattr(memory, "measure", lambda *given: reasons)


def test_the_study_goes_on_where_it_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny(monkeypatch, tmp_path)
    folder = tmp_path / "speed"
    whole, counted = study.at_point, []

    def cut_off(point: sweeps.Point, rounds: int) -> dict[str, Any]:
        counted.append(str(point))
        if len(counted) == 2:
            raise KeyboardInterrupt
        return whole(point, rounds)

    monkeypatch.setattr(study, "at_point", cut_off)
    with pytest.raises(KeyboardInterrupt):
        study.main(rounds=4, accelerator="cpu", threads=1, folder=folder)
    before = json.loads((folder / "speed.json").read_text())["points"]
    assert list(before) == ["roofline", "shape 2,8,12,12,3,2", "memory 2,8,12,12,3,2", "size 7"]
    study.main(rounds=4, accelerator="cpu", threads=1, folder=folder)
    assert counted == ["size 7", "size 14", "size 14"]
    after = json.loads((folder / "speed.json").read_text())
    assert {name: after["points"][name] for name in before} == before
    assert after["device"]
    assert after["versions"]["torch"] == torch.__version__
    assert (folder / "speed.md").read_text() == tables.markdown(after)
    assert {path.name for path in (folder / "figures").iterdir()} == {f"{name}.png" for name in figures(after)}
    assert "4 results were there before; going on with the others." in capsys.readouterr().out


def test_other_settings_start_anew_and_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny(monkeypatch, tmp_path)
    folder = tmp_path / "speed"
    study.main(rounds=4, sweeps=False, accelerator="cpu", threads=1, folder=folder)
    first = (folder / "speed.json").read_text()
    capsys.readouterr()
    study.main(rounds=5, sweeps=False, accelerator="cpu", threads=1, folder=folder)
    assert "speed.json has results of another settings (settings: {" in capsys.readouterr().out
    (aside,) = folder.glob("speed-*.json")
    assert aside.read_text() == first
    assert json.loads((folder / "speed.json").read_text())["settings"]["rounds"] == 5


def test_settings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"^rounds has 3: must be at least 4, for quartiles\.$"):
        study.main(rounds=3, folder=tmp_path)
    with pytest.raises(SpecError, match=r"^dtype has 'float16': must be one of 'float32', 'bfloat16', 'float64' on"):
        study.main(dtype="float16", accelerator="cpu", folder=tmp_path)
    with pytest.raises(SpecError, match=r"^threads has 0: must be an integer of at least 1\.$"):
        study.main(threads=0, folder=tmp_path)


def test_no_speed_is_printed_when_tests_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test_failing.py").write_text("def test_failing() -> None:\n    assert False\n")
    monkeypatch.setattr(study, "TESTS", tmp_path)
    with pytest.raises(peers.SpeedError, match="tests has failures, so no speed is measured"):
        study.main(accelerator="cpu", folder=tmp_path / "speed")
    assert not (tmp_path / "speed").exists()


# twice the goal, or twice what was measured with two threads where that is more: time / depthwise, forward and both,
# and both of the whole layer
GUARDED = [
    (SHAPES[0], 5.0, 0.42, 1.2),
    (SHAPES[1], 3.2, 0.34, 1.2),
    (SHAPES[2], 3.3, 0.48, 1.2),
    (SHAPES[3], 1.9, 1.8, 4.8),
]


@pytest.mark.parametrize(("shape", "forward", "both", "layer"), GUARDED, ids=lambda value: str(value))
def test_sums_stay_fast_beside_depthwise_convolution(shape: Shape, forward: float, both: float, layer: float) -> None:
    for _ in range(3):  # what else the machine does must not fail it
        timed = study.at_place(Place(shape), 7, ("dynops", "depthwise", "involution layer"))["peers"]
        base, own, whole = timed["depthwise"], timed["dynops"], timed["involution layer"]
        found = [
            median(tables.ratios(times, base[direction]))
            for times, direction in ((own["forward"], "forward"), (own["both"], "both"), (whole["both"], "both"))
        ]
        if all(ratio <= limit for ratio, limit in zip(found, (forward, both, layer), strict=True)):
            return
    pytest.fail(f"time / depthwise has {found}: must be at most {[forward, both, layer]}.")
