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
    file = path / RECORDS if path.is_dir() else path
    if not file.is_file():
        raise StudyError(f"{path} has no {RECORDS}: must be the folder of a {what}. Start the {what} there first.")
    try:
        plan = kind.from_plain(_first_line(file)["plan"])
    except (ValueError, KeyError, TypeError, SpecError) as error:
        raise StudyError(
            f"{file} has a first line that is no plan of a {what} ({error}): must be made by this version of dynops. "
            "Use another folder, or the version that made it."
        ) from error
    return plan, read_records(file, skip=1)


def holds(path: Path, kind: type[Spec]) -> bool:
    """Whether a folder holds a plan of some kind."""
    try:
        return bool(_first_line(path / RECORDS)["plan"]["type"] == kind.__name__)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_study(path: Path, plan: Spec, records: Iterable[RunRecord]) -> None:
    """Write a plan and records to `records.jsonl` in a folder, whole or not at all."""
    lines = [json.dumps({"plan": plan.to_plain()}, allow_nan=False), *(record.to_json() for record in records)]
    write_atomically(path / RECORDS, "\n".join(lines) + "\n")


def held(folder: Path) -> AbstractContextManager[object]:
    """Make a folder if it is missing, and hold it for this process alone while a `with` lasts.

    Raises:
        StudyError: another process works on it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(folder / "lock").acquire(timeout=0)
    except Timeout:
        raise StudyError(f"{folder} has a process that works on it: wait for it, or use another folder.") from None


def _first_line(file: Path) -> dict[str, dict[str, object]]:
    with open(file, "rb") as lines:
        first: dict[str, dict[str, object]] = json.loads(lines.readline())
    return first
