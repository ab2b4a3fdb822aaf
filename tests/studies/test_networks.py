"""The stored tables of what networks cost are those that are counted now, and say what was published."""

import json
from pathlib import Path

import pytest

from studies import networks

RESULTS = Path(networks.__file__).parent / "results" / "networks"
# counted by instantiating the authors' definition, and the ResNets of torchvision's
REDNETS = {"26": 9_233_166, "38": 12_386_986, "50": 15_540_806, "101": 25_652_950, "152": 33_984_582}
RESNETS = {"50": 25_557_032, "101": 44_549_160, "152": 60_192_808}


@pytest.fixture(scope="module")
def counts() -> networks.Counts:
    return json.loads((RESULTS / "networks.json").read_text())["counts"]


def test_the_stored_counts_are_those_that_are_counted_now(counts: networks.Counts) -> None:
    # one depth, as each takes seconds; the next test has the parameters of all
    for name, depths in networks.count((26,)).items():
        assert {depth: counts[name][depth] for depth in depths} == depths


def test_the_stored_parameters_are_the_published_ones(counts: networks.Counts) -> None:
    stored = {name: {depth: costs["parameters"] for depth, costs in depths.items()} for name, depths in counts.items()}
    assert stored[networks.CLASSIFIER] == REDNETS
    assert stored[networks.DENSE] == {depth: number + 720 for depth, number in REDNETS.items()}
    assert {depth: stored[networks.ORIGINAL][depth] for depth in RESNETS} == RESNETS


def test_the_stored_tables_are_those_of_the_stored_counts(counts: networks.Counts) -> None:
    assert (RESULTS / "networks.md").read_text() == networks.markdown(counts)
    assert (RESULTS / "networks.json").read_text() == networks.to_json(counts)


def test_published_numbers_stand_beside_ours_with_their_difference(counts: networks.Counts) -> None:
    rows = networks.cost_table(counts).rows
    fifty = rows[2]
    assert fifty[:2] == (networks.CLASSIFIER, "50")
    assert fifty[2:5] == ("15,540,806", "15.54", "+0.01 %")
    assert fifty[5:] == ("2,648,505,856", "2.71", f"{100 * (2.648505856 / 2.71 - 1):+.2f} %")
    assert len(rows) == 4 * len(networks.DEPTHS)


def test_savings_are_shares_of_the_resnet_of_the_same_depth(counts: networks.Counts) -> None:
    last = networks.saving_table(counts).rows[-1]
    saved = 100 * (1 - 33_985_302 / 60_192_808)
    assert last[:4] == (networks.DENSE, "152", "43.5", f"{saved:.1f} ({saved - 43.5:+.1f})")


@pytest.mark.parametrize("depth", networks.SAVED)
def test_published_savings_are_those_of_rounded_counts(depth: int) -> None:
    pairs = zip(networks.PUBLISHED[depth], networks.ROUNDED[depth], networks.SAVED[depth], strict=True)
    for rednet, resnet, saved in pairs:
        assert 100 * (1 - round(rednet, 1) / resnet) == pytest.approx(saved, abs=0.0501)


def test_the_study_writes_its_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: networks.Counts) -> None:
    monkeypatch.setattr(networks, "count", lambda: counts)
    networks.main(folder=tmp_path / "new")
    for name in ("networks.json", "networks.md"):
        assert (tmp_path / "new" / name).read_bytes() == (RESULTS / name).read_bytes()
