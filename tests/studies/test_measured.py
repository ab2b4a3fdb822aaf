"""What was measured outlives a kill, and is used again only where it was measured alike."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dynops.errors import StudyError
from studies.measured import ROOT, open_measured

SLOW = """
import sys, time
from pathlib import Path
from studies.measured import open_measured
measured = open_measured(Path(sys.argv[1]), {"code": "a"})
for number in range(1000):
    measured.get(str(number), lambda: [number] * 1000)
    time.sleep(0.001)
"""


def test_a_kill_at_any_moment_leaves_whole_results(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(path)], cwd=ROOT, env=os.environ)
    while not path.exists() or path.stat().st_size < 100_000:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = open_measured(path, {"code": "a"})
    assert len(again.points) >= 10
    assert again.points == {str(number): [number] * 1000 for number in range(len(again.points))}
    assert again.message == f"{len(again.points)} results were there before; going on with the others."


def test_results_of_other_code_are_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    open_measured(path, {"code": "a"}).get("one", lambda: 1)
    before = path.read_text()
    other = open_measured(path, {"code": "b"})
    assert other.get("one", lambda: 2) == 2
    (aside,) = tmp_path.glob("kept-*.json")
    assert aside.read_text() == before
    assert other.message == (
        f"{path} has results of another code (code: a, now b): starting anew. They are kept in {aside.name}."
    )


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"code": "a"}'])
def test_a_file_that_holds_something_else_is_left_alone(text: str, tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    path.write_text(text)
    with pytest.raises(StudyError, match=r"must hold results\. Move it, or choose another folder\."):
        open_measured(path, {"code": "a"})
    assert path.read_text() == text
