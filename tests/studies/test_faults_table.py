"""The table of faults says what each test did and what it found."""

from pathlib import Path

import pytest

from dynops.errors import SpecError
from studies import faults

LINE = '{"file": "test_killed_study", "test": "test_it_ends[by a kill-1]", "faults": 2, "expected": 8, "found": 8, '


def test_each_study_has_a_row_once(tmp_path: Path) -> None:
    other = LINE.replace("[by a kill-1]", "") + '"twice": 1}\n'
    (tmp_path / "lines").write_text((LINE + '"twice": 0}\n') * 2 + other)
    faults.main(tmp_path / "lines", tmp_path)
    lines = (tmp_path / "faults.md").read_text().splitlines()
    assert lines[-3:] == [
        "| killed study | It ends: by a kill, 1 | 2 | 8 | 8 | 0 |",
        "| killed study | It ends | 2 | 8 | 8 | 1 |",
        "| all |  | 4 | 16 | 16 | 1 |",
    ]


@pytest.mark.parametrize("text", [None, "garbage\n", "3\n", '{"file": "test_workers"}\n'])
def test_what_is_no_list_of_faults_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "lines").write_text(text)
    with pytest.raises(SpecError, match=r"lines has no faults \(.*\): must be what pytest wrote with `--faults`\."):
        faults.main(tmp_path / "lines", tmp_path)
