"""The main study, small, to its end; its cells; and what it says to bad input."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dynops import Channels, Dynamic, Static
from dynops.ablation import read_study
from dynops.data import Digits
from dynops.errors import DataError, SpecError
from dynops.training import Recipe
from studies import which_part
from studies.setting import Setting

ROOT = Path(__file__).resolve().parents[2]


def program(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "studies.which_part", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes, **options)


def outcomes(folder: Path) -> dict[str, float]:
    return {record.point: record.metrics["loss"] for record in read_study(folder)[1]}


def test_the_study_ends_in_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    which_part.main(seeds=1, epochs=1, fraction=0.1, folder=tmp_path, tune=False)
    text = (tmp_path / "report.md").read_text()
    assert "H1 is undecided" in text
    assert "H2 is undecided" in text
    assert "needs at least 3 complete seeds, has 1" in text
    assert (tmp_path / "effects.json").is_file()
    assert list((tmp_path / "tensorboard").rglob("*tfevents*"))
    assert {path.stem for path in (tmp_path / "figures").iterdir()} >= {"effects-all", "factors-kernel-by-channels"}
    assert "H2 is undecided" in capsys.readouterr().out


def setting(**changes: Any) -> Setting:
    return Setting(**({"data": Digits(), "recipe": Recipe(), "seeds": (0,), "run": pytest.fail} | changes))


def test_the_cells_differ_in_two_parts_only() -> None:
    study = which_part.study(setting())
    kernels = {"static": Static(), "constant": Dynamic(context="constant"), "pixel": Dynamic(context="pixel")}
    channels = {"per_channel": Channels("g"), "grouped": Channels("(g s)", s=16)}
    base: Any = study.base
    for levels in study.plan().cell_levels():
        cell: Any = study.cell(levels)
        (operator,), (before,) = cell.network.operators, base.network.operators
        assert operator.kernel == kernels[levels["kernel"]]
        assert operator.channels == channels[levels["channels"]]
        assert replace(operator, kernel=before.kernel, channels=before.channels) == before
        assert replace(cell, network=base.network) == base


def test_a_twin_has_the_parameters_of_the_pixels_kernel_and_its_learned_vector() -> None:
    study = which_part.study(setting())

    def count(kernel: str, channels: str) -> int:
        cell: Any = study.cell({"kernel": kernel, "channels": channels})
        return sum(p.numel() for p in cell.network.build((1, 8, 8), 10).parameters())

    for channels in ("per_channel", "grouped"):
        assert count("constant", channels) - count("pixel", channels) == 3 * 32


def test_a_killed_study_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    options = ("--seeds=1", "--epochs=2", "--fraction=0.2", "--tune=false")
    which_part.main(seeds=1, epochs=2, fraction=0.2, tune=False, folder=tmp_path / "whole")
    killed = program(*options, f"--folder={tmp_path / 'killed'}")
    while len(list((tmp_path / "killed").rglob("result.json"))) < 2:
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    again = program(*options, f"--folder={tmp_path / 'killed'}")
    output, _ = again.communicate(timeout=200)
    assert again.returncode == 0, output
    assert "runs were done before; going on" in output
    assert outcomes(tmp_path / "killed") == outcomes(tmp_path / "whole")
    assert len(read_study(tmp_path / "killed")[1]) == 6


def test_seeds_at_once_give_the_outcomes_of_seeds_alone(tmp_path: Path) -> None:
    for name, batch_seeds in (("alone", False), ("at once", True)):
        which_part.main(seeds=2, epochs=1, fraction=0.1, folder=tmp_path / name, batch_seeds=batch_seeds, tune=False)
    at_once = read_study(tmp_path / "at once")[1]
    assert all(record.device.endswith("2 seeds at once") for record in at_once)
    assert [bool(record.images) for record in at_once] == [
        record.seed == 0 and record.levels["kernel"] == "pixel" for record in at_once
    ]
    assert outcomes(tmp_path / "at once") == pytest.approx(outcomes(tmp_path / "alone"), rel=1e-4)


def test_flags_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="digits need no files"):
        which_part.main(root=tmp_path)
    with pytest.raises(SpecError, match="digits need no files"):
        which_part.main(download=True)


def test_missing_data_stop_the_study_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cifar-10-batches-py"):
        which_part.main(data="cifar10", root=tmp_path, folder=tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_a_share_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"fraction has 1\.5"):
        which_part.main(fraction=1.5, folder=tmp_path)
    with pytest.raises(SpecError, match=r"fraction has 0\.0"):
        which_part.main(fraction=0.0, folder=tmp_path)


def test_an_error_ends_the_program_with_its_message_alone(tmp_path: Path) -> None:
    process = program("--seeds=0", f"--folder={tmp_path}")
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 2
    assert output.startswith("Error: seeds has ()")
    assert "Traceback" not in output
