"""The file `records.jsonl` of a study: its plan in the first line, then one accepted result or failure a line."""

import json
from collections.abc import Iterable
from pathlib import Path

from dynops.ablation.plan import Plan
from dynops.errors import SpecError, StudyError
from dynops.records import RunRecord, read_records, write_atomically

RECORDS = "records.jsonl"


def read_study(path: Path) -> tuple[Plan, list[RunRecord]]:
    """Read a study's plan and records; a torn last line, left by a kill while it was written, is passed over.

    Args:
        path: the study's folder, or its `records.jsonl`.
    Raises:
        StudyError: there is no such file, or its first line holds no plan.
        RecordError: a whole line is not a record; nothing is changed on disk.
    """
    file = path / RECORDS if path.is_dir() else path
    if not file.is_file():
        raise StudyError(f"{path} has no {RECORDS}: must be the folder of a study. Start the study there first.")
    with open(file, "rb") as lines:
        first = lines.readline()
    try:
        plan = Plan.from_plain(json.loads(first)["plan"])
    except (ValueError, KeyError, TypeError, SpecError) as error:
        raise StudyError(
            f"{file} has a first line that is no plan ({error}): must be made by this version of dynops. "
            "Use another folder, or the version that made it."
        ) from error
    return plan, read_records(file, skip=1)


def write_study(path: Path, plan: Plan, records: Iterable[RunRecord]) -> None:
    """Write a study's plan and records to `records.jsonl` in a folder, whole or not at all."""
    lines = [json.dumps({"plan": plan.to_plain()}, allow_nan=False), *(record.to_json() for record in records)]
    write_atomically(path / RECORDS, "\n".join(lines) + "\n")
