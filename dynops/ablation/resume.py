"""A study's folder between two calls: results on disk, and the plan and records that say the same."""

import os
import platform
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from dynops.ablation.ledger import DesignPoint, design
from dynops.ablation.plan import STATED, Plan, Registration
from dynops.ablation.store import RECORDS, read_study, write_study
from dynops.errors import RecordError, StudyError
from dynops.records import RunRecord, cell_name, write_atomically

RESULT = "result.json"


def keep_result(folder: Path, record: RunRecord) -> bool:
    """Put a result on disk, where it counts from then on; return False, and leave all as it is, where there is one.

    To be called under the folder's lock.
    """
    place = run_folder(folder, DesignPoint(levels=dict(record.levels), seed=record.seed)) / RESULT
    waiting = place.with_name(f"{RESULT}.{platform.node()}.{os.getpid()}")
    write_atomically(waiting, record.to_json() + "\n")
    try:
        os.link(waiting, place)  # the one call that can't replace a file, should the lock ever fail
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        if place.exists():
            return False
        os.replace(waiting, place)
    finally:
        waiting.unlink(missing_ok=True)
    return True


def run_folder(folder: Path, point: DesignPoint) -> Path:
    """Return the folder of one run."""
    return folder / "runs" / cell_name(point.levels) / f"seed={point.seed}"


def reconcile(folder: Path, plan: Plan | None = None) -> tuple[Plan, list[RunRecord]]:
    """Bring `records.jsonl` up to the results on disk, one accepted record a point; return its plan and records.

    To be called under the folder's lock.

    Args:
        folder: of the study.
        plan: with which the study starts or goes on; by default the one that is there.
    Raises:
        StudyError: the folder holds another study, or a result that is torn or not of its place.
    """
    before: Plan | None = None
    stored: list[RunRecord] = []
    if plan is None or (folder / RECORDS).exists():
        before, stored = read_study(folder)
        plan = before if plan is None else _continued(folder, before, plan)
    elif (folder / "runs").exists():
        raise StudyError(f"{folder} has runs but no {RECORDS}: restore that file, or use another folder.")
    accepted: set[str] = set()
    records = []
    for record in stored:
        if record.point not in accepted:
            records.append(record)
            accepted |= {record.point} if record.accepted else set()
    for point in design(plan):
        result = run_folder(folder, point) / RESULT
        if point.id not in accepted and result.exists():
            records.append(_read_result(result, point))
    if not records and (plan.registration is None or plan.changes()):
        plan = _registered(plan)  # nobody has seen a result
    if (plan, records) != (before, stored):
        write_study(folder, plan, records)
    return plan, records


def _registered(plan: Plan) -> Plan:
    """Return a plan that says what it stated when, to be written before its first run."""
    statement = plan.statement()
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    return replace(plan, registration=Registration(statement, moment, statement.fingerprint()))


def _read_result(path: Path, point: DesignPoint) -> RunRecord:
    try:
        record = RunRecord.from_json(path.read_bytes())
    except RecordError as error:
        raise StudyError(f"{path} has no whole result ({error}): remove it, and the point is run again.") from error
    if record.point != point.id:
        raise StudyError(f"{path} has the result of {record.cell}, seed {record.seed}: it was moved there. Remove it.")
    return record


def _continued(folder: Path, before: Plan, plan: Plan) -> Plan:
    """Return the plan with which a study goes on: its runs, more seeds if asked for, and what is claimed now."""
    if before.tuned is None and plan.tuned is not None:
        before = replace(before, tuned=plan.tuned, cells=plan.cells)  # it was cut off while it was tuned
    was, now = before.to_plain(), plan.to_plain()
    runs = (was.keys() | now.keys()) - set(STATED) - {"registration"} | {"outcome"}
    changed = sorted(key for key in runs if was.get(key) != now.get(key))
    if changed:
        raise StudyError(
            f"{folder} has study {before.name!r}, asked for is {plan.name!r}; they differ in {', '.join(changed)}: a "
            "folder holds one study with one plan. Use another folder, or the settings that it was started with."
        )
    if set(before.seeds) - set(plan.seeds):
        raise StudyError(
            f"{folder} has seeds {before.seeds}, asked for are {plan.seeds}: seeds can be added to a study, not "
            "dropped. Ask for those and more, or use another folder."
        )
    return replace(plan, registration=before.registration)
