"""The results that the README shows are those of the records that are kept beside it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dynops.ablation import read_study, report
from studies import memory, probes
from studies.speed import tables

README = Path(__file__).resolve().parents[2] / "README.md"
RESULTS = README.parent / "studies" / "results"
STUDIES = sorted(path.parent.name for path in RESULTS.glob("*/records.jsonl"))


def close(found: Any, kept: Any) -> bool:
    """Equal, numbers up to rounding."""
    if isinstance(kept, dict):
        return found.keys() == kept.keys() and all(close(found[key], kept[key]) for key in kept)
    if isinstance(kept, list):
        return len(found) == len(kept) and all(map(close, found, kept))
    return found == (pytest.approx(kept, rel=1e-6, abs=1e-12) if isinstance(kept, float) else kept)


@pytest.mark.parametrize("study", STUDIES)
def test_kept_results_can_be_made_anew_from_their_records(study: str, tmp_path: Path) -> None:
    shutil.copy(RESULTS / study / "records.jsonl", tmp_path)
    made = report(tmp_path)
    kept = json.loads((RESULTS / study / "effects.json").read_text())
    assert close(json.loads((tmp_path / "effects.json").read_text()), kept), "run `dynops report` on the kept folder"
    assert made.text == (RESULTS / study / "report.md").read_text()


@pytest.mark.parametrize("study", STUDIES)
def test_kept_results_are_complete_and_say_where_they_come_from(study: str) -> None:
    plan, records = read_study(RESULTS / study)
    accepted = {record.point for record in records if record.accepted}
    assert len(accepted) == len(plan.seeds) * len(plan.cell_levels())
    for record in records:
        assert record.device
        assert record.versions["torch"]
        assert record.commit


def test_the_studies_of_the_readme_are_kept() -> None:
    groups = {f"probes-{group}" for group in probes.GROUPS if group != "axes"}
    assert {"which_part-digits", "which_part-cifar10-0.1", "probes", *groups} <= set(STUDIES)


@pytest.mark.parametrize("study", [study for study in STUDIES if study.startswith("probes")])
def test_probes_of_the_readme_are_those_of_the_records(study: str) -> None:
    head, rows = probes.table(read_study(RESULTS / study)[1])
    lines = [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]
    assert (RESULTS / study / "probes.md").read_text().splitlines() == lines
    assert set(lines[2:]) <= set(README.read_text().splitlines())


def test_speeds_of_the_readme_are_those_that_were_measured() -> None:
    saved = json.loads((RESULTS / "speed" / "speed.json").read_text())
    assert saved["device"]
    assert saved["commit"]
    assert (RESULTS / "speed" / "speed.md").read_text() == tables.markdown(saved)
    shown = README.read_text().splitlines()
    for table in (tables.summary(saved), tables.growth(saved), tables.losses(saved)):
        assert set(table.to_markdown().splitlines()[2 : 2 + len(table.rows)]) <= set(shown)


def test_memory_of_the_readme_is_what_was_measured() -> None:
    saved = json.loads((RESULTS / "memory" / "memory.json").read_text())
    table = memory.table(saved)
    assert (RESULTS / "memory" / "memory.md").read_text() == memory.markdown(saved)
    assert set(table.to_markdown().splitlines()[2 : 2 + len(table.rows)]) <= set(README.read_text().splitlines())
