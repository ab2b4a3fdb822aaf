"""Joining a study with nothing but its folder, and what may stand in the file that says how it is made."""

import json
import runpy
import signal
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dynops.ablation import Study, join, read_study
from dynops.ablation.maker import described, made, reference, resolve
from dynops.cli import main
from dynops.errors import StudyError

Start = Callable[..., Any]
JOINER = "joiner.py"
MODULE = """
from pathlib import Path

from dynops.ablation import Study


def study(path: str) -> Study:
    Path(path).touch()
    raise AssertionError("made")


def other(path: str) -> str:
    Path(path).touch()
    return path


def unsaid(path):
    Path(path).touch()


def unknown(path: str) -> "Nowhere":
    Path(path).touch()


class Callable:
    def __call__(self, path: str) -> Study:
        Path(path).touch()


instance = Callable()
"""
PROGRAM = """
from dynops.ablation.maker import reference


def function():
    pass


found = reference(function)
"""


def end(*started: Any) -> list[str]:
    """Wait for processes that end well, and return what they said."""
    endings = [each.finish() for each in started]
    assert [code for code, _ in endings] == [0] * len(started), endings
    return [output for _, output in endings]


@pytest.fixture
def traps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module whose functions leave a file when they are called."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "traps.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.delitem(sys.modules, "traps", raising=False)
    return "traps"


def test_two_workers_that_know_the_folder_alone_finish_a_study(
    tmp_path: Path, start: Start, check_nothing_lost_nothing_twice: Any, executions: Callable[..., Counter[str]]
) -> None:
    killed = start(tmp_path, "--seconds=0.2", "--seeds=4")
    killed.runs(2)
    killed.process.kill()
    assert killed.finish()[0] == -signal.SIGKILL
    joined = [start(tmp_path, program=JOINER) for _ in range(2)]
    assert all(" 16/16 " in said for said in end(*joined))
    check_nothing_lost_nothing_twice(tmp_path, 16, faults=1)
    lines = (tmp_path / "executions").read_text().splitlines()
    assert {str(each.process.pid) for each in joined} < {line.split(" ")[2] for line in lines}, "one did all"
    assert set(executions(tmp_path, "end").values()) == {1}


def test_a_worker_that_joins_runs_what_failed_again_if_asked_to(tmp_path: Path, start: Start) -> None:
    end(start(tmp_path, "--moment=fails"))
    (tmp_path / "mended").touch()
    end(start(tmp_path, program=JOINER))
    assert [record.status for record in read_study(tmp_path)[1]] == ["failed"] * 8
    end(start(tmp_path, "--retry-failed", program=JOINER))
    assert [record.status for record in read_study(tmp_path)[1]] == ["failed"] * 8 + ["complete"] * 8


def test_a_folder_without_a_study_cannot_be_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["dynops", "worker", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        main()
    said = " ".join(capsys.readouterr().err.split())
    assert "has no study: must hold one. Start the study first." in said


def test_a_study_that_does_not_say_how_it_is_made_cannot_be_joined(
    tmp_path: Path, own_tests: Callable[[str], ModuleType]
) -> None:
    killable = own_tests("killable")
    killable.make(killable.record_of).execute(tmp_path)
    with pytest.raises(StudyError, match="does not say how it is made: must be executed with `maker`"):
        join(tmp_path)


def told(maker: str, *arguments: Any, **options: Any) -> str:
    return json.dumps({"maker": maker, "arguments": arguments, "options": options})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"maker": "traps:stu', 'study has maker \'{"maker": "traps:stu\' .*: must be what a study wrote when it'),
        ('"traps:study"', "must be what a study wrote when it began"),
        ('{"maker": "traps:study", "arguments": 3, "options": {}}', "must be what a study wrote when it began"),
        (told("os:system", "touch {marker}"), "study has maker 'os:system': must be a function that is declared to re"),
        (told("traps:other", "{marker}"), "maker 'traps:other': must be a function that is declared to return a Study"),
        (told("traps:unsaid", "{marker}"), "maker 'traps:unsaid': must be a function that is declared to return"),
        (told("traps:unknown", "{marker}"), "maker 'traps:unknown': must be a function that is declared to return"),
        (told("traps:instance", "{marker}"), "maker 'traps:instance': must be a function that is declared to return"),
        (told("traps:missing", "{marker}"), "maker 'traps:missing' .*: must be a function of a module that can be imp"),
        (told("nowhere:study"), r"maker 'nowhere:study' \(No module named 'nowhere'\): must be a function of a module"),
        (told(".traps:study"), "maker '.traps:study' .*: must be a function of a module that can be imported here"),
        (told(""), "maker '' .*: must be a function of a module that can be imported here"),
        (told("traps:study", "{marker}", 2), r"maker 'traps:study' with .* \(too many positional arguments\): must be"),
        (told("traps:study", path="{marker}", b=2), "maker 'traps:study' with .*: must be called as declared"),
    ],
)
def test_what_does_not_say_how_a_study_is_made_is_refused_and_not_called(
    tmp_path: Path, traps: str, text: str, message: str, own_tests: Callable[[str], ModuleType]
) -> None:
    killable = own_tests("killable")
    killable.make(killable.record_of).execute(tmp_path / "study")
    before = (tmp_path / "study" / "records.jsonl").read_bytes()
    (tmp_path / "study" / "study.json").write_text(text.replace("{marker}", str(tmp_path / "marker")))
    with pytest.raises(StudyError, match=message):
        join(tmp_path / "study")
    assert not (tmp_path / "marker").exists()
    assert (tmp_path / "study" / "records.jsonl").read_bytes() == before


def test_what_is_declared_to_make_a_study_is_called(tmp_path: Path, traps: str) -> None:
    maker = made(told("traps:study", str(tmp_path / "marker")), Study)
    assert not (tmp_path / "marker").exists(), "to read is not to run"
    with pytest.raises(AssertionError, match="made"):
        maker()
    assert (tmp_path / "marker").exists()


def test_a_function_and_its_arguments_are_described_and_made_again(traps: str) -> None:
    study = resolve("traps:study")
    assert reference(study) == "traps:study"
    assert described(study) == told("traps:study")
    again = made(described(partial(study, path="here")) or "", Study)
    assert isinstance(again, partial)
    assert (again.func, again.args, again.keywords) == (study, (), {"path": "here"})
    assert described(partial(study, "here")) == told("traps:study", "here")


def test_what_another_process_could_not_find_is_not_described(traps: str) -> None:
    def closure() -> None:
        pass

    for function in (closure, lambda: None, partial(closure)):
        assert described(function) is None
    study = resolve("traps:study")
    for argument in (Path("here"), (1, 2), float("nan"), {1: 2}, object()):
        assert described(partial(study, argument)) is None, argument


@pytest.mark.parametrize("name", ["own_program", "own-program"])
def test_the_function_of_a_program_is_that_of_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    program = tmp_path / f"{name}.py"
    program.write_text(PROGRAM)
    assert runpy.run_path(str(program), run_name="__main__")["found"] is None, "others could not import it"
    monkeypatch.syspath_prepend(tmp_path)
    assert runpy.run_path(str(program), run_name="__main__")["found"] == f"{name}:function"
    assert runpy.run_module(name, run_name="__main__", alter_sys=True)["found"] == f"{name}:function"
