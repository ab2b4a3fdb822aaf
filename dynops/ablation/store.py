"""The folder of a study or a search, and its file `records.jsonl`: a plan in the first line, then a record a line."""

import json
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from dynops.ablation.plan import Plan
from dynops.errors import SpecError, StudyError
from dynops.records import RunRecord, read_records, write_atomically
from dynops.specs import Spec

RECORDS = "records.jsonl"
P = TypeVar("P", bound=Spec)


def read_study(path: Path) -> tuple[Plan, list[RunRecord]]:
    """Read a study's plan and records; a torn last line, left by a kill while it was written, is passed over.

    Args:
        path: the study's folder, or its `records.jsonl`.
    Raises:
        StudyError: there is no such file, or its first line holds no plan.
        RecordError: a whole line is not a record; nothing is changed on disk.
    """
    return read_planned(path, Plan, "study")


def read_planned(path: Path, kind: type[P], what: str) -> tuple[P, list[RunRecord]]:
    """Read a plan of some kind and its records; arguments and errors as in `read_study`."""
    plan = read_plan(path, kind, what)
    return plan, read_records(_file(path), skip=1)


def read_plan(path: Path, kind: type[P], what: str) -> P:
    """Read a plan of some kind alone; arguments and errors as in `read_study`."""
    file = _file(path)
    if not file.is_file():
        raise StudyError(f"{path} has no {RECORDS}: must be the folder of a {what}. Start the {what} there first.")
    try:
        return kind.from_plain(json.loads(first_line(file))["plan"])
    except (ValueError, KeyError, TypeError, SpecError) as error:
        raise StudyError(
            f"{file} has a first line that is no plan of a {what} ({error}): must be made by this version of dynops. "
            "Use another folder, or the version that made it."
        ) from error


def _file(path: Path) -> Path:
    return path / RECORDS if path.is_dir() else path


def holds(path: Path, kind: type[Spec]) -> bool:
    """Whether a folder holds a plan of some kind."""
    try:
        return bool(json.loads(first_line(path / RECORDS))["plan"]["type"] == kind.__name__)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_study(path: Path, plan: Spec, records: Iterable[RunRecord]) -> None:
    """Write a plan and records to `records.jsonl` in a folder, whole or not at all."""
    lines = [plan_line(plan), *(record.to_json() for record in records)]
    write_atomically(path / RECORDS, "\n".join(lines) + "\n")


def plan_line(plan: Spec) -> str:
    """Return the first line of a study's records."""
    return json.dumps({"plan": plan.to_plain()}, allow_nan=False)


def first_line(file: Path) -> str:
    """Read the first line of a file."""
    with open(file, encoding="utf-8") as lines:
        return lines.readline().removesuffix("\n")


def held(folder: Path, *, wait: bool = False) -> AbstractContextManager[object]:
    """Make a folder if it is missing, and hold it for this process alone while a `with` lasts.

    Args:
        folder: of a study or a search.
        wait: whether to wait until the process that holds it lets go.
    Raises:
        StudyError: another process works on it, and this one does not wait.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(folder.resolve() / "lock").acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise StudyError(f"{folder} has a process that works on it: wait for it, or use another folder.") from None


class Tail:
    """The end of a study's records, read while others write it; records only ever come behind those that are there."""

    def __init__(self, folder: Path) -> None:
        """Start before the first record."""
        self._file = folder / RECORDS
        self._plan = b""
        self._at = 0
        self._read = 0

    def read(self) -> list[RunRecord]:
        """Return the records that have come since the last call."""
        with open(self._file, "rb") as file:
            plan = file.readline()
            passed = 0
            if plan != self._plan:  # the file was written anew, with another plan
                self._plan, self._at, passed = plan, len(plan), self._read
            file.seek(self._at)
            lines = file.read().split(b"\n")[:-1]
        self._at += sum(len(line) + 1 for line in lines)
        found = [RunRecord.from_json(line) for line in lines[passed:]]
        self._read += len(found)
        return found
