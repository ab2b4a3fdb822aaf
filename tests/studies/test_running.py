"""A study is begun by its own command, and worked on by whoever has its folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dynops.ablation import read_study
from dynops.errors import SpecError
from studies import running, which_part
from studies.conducting import conduct, made

ROOT = Path(__file__).resolve().parents[2]
STUDY = "studies.which_part:study"


def test_an_array_of_jobs_works_on_a_study_that_was_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "study"
    which_part.main(folder=folder, workers=0, seeds=1, epochs=1, tune=False, accelerator="cpu")
    assert f"`dynops worker {folder}` works on it" in capsys.readouterr().out.replace("\n", "")
    assert read_study(folder)[1] == []
    slurm = tmp_path / "srun"
    slurm.write_text('#!/bin/bash\nexec "$@"\n')
    slurm.chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    job = ["bash", str(ROOT / "studies" / "worker.sbatch"), str(folder)]
    jobs = [
        subprocess.Popen(job, env=os.environ | {"PATH": path}, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [each.communicate()[1] for each in jobs]
    assert [each.returncode for each in jobs] == [0, 0], said
    records = read_study(folder)[1]
    assert len(records) == 6
    assert all(record.accepted for record in records)


def test_a_study_is_made_again_from_plain_values() -> None:
    study = made(STUDY, seeds=3, first_seed=7, epochs=1, accelerator="cpu", tune=False)
    assert list(study.seeds) == [7, 8, 9]
    assert len(study.cells()) == 6


def test_a_study_that_no_other_process_could_find_is_refused() -> None:
    with pytest.raises(SpecError, match=r"study has .*: must be a function of a module"):
        conduct("which_part", lambda setting: which_part.study(setting))


def test_what_is_for_a_cluster_alone_is_refused_without_one(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"cpus has 2, gpus has None: .* Say --ray as well"):
        running.execute(lambda: made(STUDY), tmp_path, cpus=2)


def test_seeds_that_are_trained_together_have_one_device() -> None:
    with pytest.raises(SpecError, match="devices has 2, batch_seeds has True"):
        made(STUDY, devices=2, batch_seeds=True)
