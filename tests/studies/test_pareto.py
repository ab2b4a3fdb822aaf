"""The search for operators worth their cost: small to its end, its points, and what it says to bad input."""

from pathlib import Path
from typing import Any

import pytest

from dynops.ablation import read_search
from dynops.data import Digits
from dynops.errors import DataError, ShapeError, SpecError
from dynops.training import Recipe
from studies import pareto


def search() -> Any:
    return pareto.search(Digits(), Recipe(), pytest.fail, lambda experiment: None, trials=5, seeds=2, sampler="tpe")


def levels(operator: str, kernel_size: int, group_channels: int, width: int) -> dict[str, str]:
    return {
        "operator": operator,
        "kernel_size": str(kernel_size),
        "group_channels": str(group_channels),
        "width": str(width),
    }


def test_the_search_ends_in_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pareto.main(trials=6, seeds=1, epochs=2, fraction=0.1, folder=tmp_path)
    plan, records = read_search(tmp_path)
    assert len({record.point for record in records if record.accepted}) == 6
    assert all(record.spec["data"]["evaluate"] == "validation" for record in records)
    assert all(record.parameters and record.macs for record in records)
    assert plan.size == 6 * 3 * 4 * 4
    text = (tmp_path / "report.md").read_text()
    assert "**Exploratory search, not an ablation.**" in text
    assert "n = 6 trials of 6 planned (6 complete), of 288 points, each with 1 seed (2000)" in text
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"front", "history"}
    assert list((tmp_path / "tensorboard").rglob("*tfevents*"))
    assert "Exploratory search, not an ablation." in capsys.readouterr().out


@pytest.mark.parametrize("operator", pareto.OPERATORS)
def test_a_point_is_the_family_with_its_window_its_sharing_and_the_width(operator: str) -> None:
    point = search().point(levels(operator, 5, 8, 48))
    (found,) = point.network.operators
    assert found.kernel == pareto.OPERATORS[operator].kernel
    assert found.window.size == 5
    assert found.channels.s == 8
    assert point.network.width == 48
    point.network.build((1, 8, 8), 10)


def test_a_width_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ShapeError, match="c=24 channels"):
        search().point(levels("involution", 3, 16, 24)).network.build((1, 8, 8), 10)


def test_flags_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="digits need no files"):
        pareto.main(root=tmp_path)


def test_missing_data_stop_the_search_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cifar-10-batches-py"):
        pareto.main(data="cifar10", root=tmp_path, folder=tmp_path / "search")
    assert not (tmp_path / "search").exists()
