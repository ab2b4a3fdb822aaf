"""The command line: what it prints, and how it ends."""

import subprocess
import sys
from pathlib import Path

import pytest

from dynops import cli
from dynops.ablation.plan import Levels, Plan
from dynops.ablation.store import write_study
from dynops.records import RunRecord


def dynops(*arguments: str) -> "subprocess.CompletedProcess[str]":
    code = "from dynops.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    plan = Plan(name="small", question="Which?", factors=(Levels("kernel", ("static", "pixel")),), seeds=(0, 1, 2))
    records = [
        RunRecord(levels=levels, seed=seed, status="complete", metrics={"accuracy": 0.5 + 0.1 * cell + 0.01 * seed})
        for seed in plan.seeds
        for cell, levels in enumerate(plan.cell_levels())
    ]
    write_study(tmp_path, plan, records)
    return tmp_path


def test_report_is_made_anew_from_the_records(study: Path) -> None:
    run = dynops("report", str(study))
    assert run.returncode == 0, run.stderr
    assert "Cells" in run.stdout
    assert f"tensorboard --logdir {study / 'tensorboard'}" in run.stdout
    assert "kernel: pixel - static" in (study / "report.md").read_text()


def test_an_error_has_its_message_alone_and_status_2(tmp_path: Path) -> None:
    run = dynops("report", str(tmp_path))
    assert run.returncode == 2
    assert run.stdout == ""
    assert " ".join(run.stderr.split()).startswith("Error: ")
    assert "has no records.jsonl: must be the folder of a study." in " ".join(run.stderr.split())
    assert "Traceback" not in run.stderr


def test_help_says_what_the_arguments_mean() -> None:
    run = dynops("report", "--help")
    assert run.returncode == 0
    assert "the study's folder" in run.stdout


def test_ctrl_c_ends_with_status_130() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        cli.command(interrupted, "A command.", args=[])
    assert ended.value.code == 130
