"""`make gpu` runs each step once, keeps what came of it, and says what it lacks."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dynops.cli import command
from dynops.errors import DataError, StudyError
from studies import gpu, memory, which_part
from studies.gpu import Step
from studies.speed import study as speed

CPU = torch.device("cpu")
COUNT = "import sys, pathlib; path = pathlib.Path(sys.argv[1]); path.write_text(path.read_text() + 'x')"


def kept(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text())


def test_without_a_gpu_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = (
        r"^machine has .*cpu, torch .*: needs an NVIDIA GPU that torch sees\. Run `make gpu` on a machine with one"
    )
    with pytest.raises(gpu.GpuError, match=message):
        gpu.main(folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_step_that_is_done_is_not_run_again(tmp_path: Path) -> None:
    counted = tmp_path / "counted"
    counted.write_text("")
    listed = [Step(name="one", arguments=("-c", COUNT, str(counted)))]
    for _ in range(2):
        gpu.run_steps(listed, tmp_path, CPU)
    assert counted.read_text() == "x"
    found = kept(tmp_path, "one")
    assert (found["state"], found["reason"]) == ("done", "")
    assert found["seconds"] > 0
    assert found["device"]
    assert found["versions"]["torch"] == torch.__version__
    (tmp_path / "one.json").write_text(json.dumps(found | {"code": "other"}))
    gpu.run_steps(listed, tmp_path, CPU)
    assert counted.read_text() == "xx"


def test_a_failed_step_keeps_its_last_lines_and_the_others_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = [
        Step(name="bad", arguments=("-c", "print('why it failed'); raise SystemExit(3)")),
        Step(name="lacking", arguments=("-c", "raise SystemExit(4)"), obstacle=lambda: "there are no data"),
        Step(name="good", arguments=("-c", "pass")),
    ]
    with pytest.raises(gpu.GpuError, match=r"^gpu has failed steps bad: must all pass\. Their last lines are in "):
        gpu.run_steps(listed, tmp_path, CPU)
    assert kept(tmp_path, "bad")["state"] == "failed"
    assert kept(tmp_path, "bad")["reason"] == "exit status 3\nwhy it failed\n"
    assert kept(tmp_path, "lacking")["state"] == "skipped"
    assert kept(tmp_path, "lacking")["reason"] == "there are no data"
    assert kept(tmp_path, "good")["state"] == "done"
    said = capsys.readouterr().out
    assert "lacking: skipped in 0 s" in said
    assert "s in all. Results:" in said


def test_missing_data_are_an_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **named: Any) -> None:
        raise DataError("the address has no answer")

    monkeypatch.setattr(gpu.Cifar10, "load", refuse)
    assert gpu.missing_data(tmp_path) == "the address has no answer"


def test_results_of_a_study_are_copied(tmp_path: Path) -> None:
    made, place = tmp_path / "made", tmp_path / "place"
    (made / "figures").mkdir(parents=True)
    (made / "figures" / "one.png").write_bytes(b"png")
    (made / "speed.json").write_text("{}")
    with pytest.raises(StudyError, match=r"has no speed\.md: a study that ends must leave it\. Start it again\."):
        gpu.copy_results("speed", made, place)
    (made / "speed.md").write_text("# Speed")
    gpu.copy_results("speed", made, place)
    assert sorted(path.name for path in place.rglob("*")) == ["figures", "one.png", "speed.json", "speed.md"]


def test_the_steps_are_the_programs_of_the_studies(tmp_path: Path) -> None:
    listed = {step.name: list(step.arguments) for step in gpu.steps(tmp_path, tmp_path / "data", tmp_path / "work")}
    assert list(listed) == ["tests", "memory", "speed", "which_part"]
    assert listed["tests"][:5] == ["-m", "pytest", "-q", "-m", "gpu"]
    for name in ("memory", "speed", "which_part"):
        assert listed[name][:3] == ["-m", f"studies.{name}", "--accelerator=cuda"]


@pytest.mark.parametrize("program", [memory, speed, which_part], ids=lambda program: program.__name__)
def test_the_programs_take_their_options(program: Any, tmp_path: Path) -> None:
    steps = {step.arguments[1]: step for step in gpu.steps(tmp_path, tmp_path / "data", tmp_path / "work")}
    arguments = steps[program.__name__.removesuffix(".study")].arguments[2:]
    with pytest.raises(SystemExit) as ended:
        command(program.main, "", [*arguments, "--print_config"])
    assert ended.value.code == 0
