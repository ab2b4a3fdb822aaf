"""How many seeds a study needs, from its pilot."""

from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from dynops.ablation.claims import Difference
from dynops.ablation.designs import Levels
from dynops.ablation.plan import Plan
from dynops.ablation.reporting.planning import needed_seeds
from dynops.ablation.store import write_study
from dynops.errors import SpecError, StudyError
from dynops.records import RunRecord

PLAN = Plan(
    name="pilot",
    question="q",
    factors=(Levels("kernel", ("static", "pixel")),),
    seeds=(0, 1, 2, 3),
    family=(Difference("kernel", "pixel", "static"),),
)


def pilot(folder: Path, differences: tuple[float, ...]) -> Path:
    records = [
        RunRecord(
            levels={"kernel": level},
            seed=seed,
            status="complete",
            metrics={"accuracy": 0.5 + difference * (level == "pixel")},
        )
        for seed, difference in enumerate(differences)
        for level in ("static", "pixel")
    ]
    write_study(folder, PLAN, records)
    return folder


def test_a_pilot_says_how_many_seeds_a_difference_needs(tmp_path: Path) -> None:
    values = (0.01, 0.03, -0.01, 0.02)
    table = needed_seeds(pilot(tmp_path, values), 0.01)
    deviation = float(np.std(values, ddof=1))
    needed = next(n for n in range(3, 999) if TTestPower().power(0.01 / deviation, n, 0.05) >= 0.8)
    (row,) = table.rows
    assert row[:4] == ("kernel: pixel - static", "4", f"{100 * deviation:.2f}", str(needed))
    shown = 100 * deviation * TTestPower().solve_power(None, 20, 0.05, 0.8)
    assert float(row[table.columns.index("shown by 20")]) == pytest.approx(shown, abs=0.006)
    assert "Level 0.05, shared out over 1 effects" in table.note


def test_mistakes_say_what_a_plan_needs(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"has 1 stated effects and none with 3 complete seeds"):
        needed_seeds(pilot(tmp_path, (0.01, 0.02)), 0.01)
    with pytest.raises(SpecError, match=r"effect has 0\.0: must be positive"):
        needed_seeds(tmp_path, 0.0)
