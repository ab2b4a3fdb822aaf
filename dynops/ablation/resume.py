"""A study between two calls: results on disk, and the plan and records that say the same."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from dynops.ablation.plan import STATED, DesignPoint, Plan, Registration
from dynops.ablation.shared import RESULT, Shared, run_folder
from dynops.errors import RecordError, StudyError
from dynops.records import RunRecord


def reconcile(shared: Shared, plan: Plan | None = None) -> tuple[Plan, list[RunRecord]]:
    """Bring the records up to the results on disk, one accepted record a point; return the plan and the records.

    To be called while the study is held.

    Args:
        shared: the study.
        plan: with which it starts or goes on; by default the one that is there.
    Raises:
        StudyError: there is another study, or a result that is torn or not of its place.
    """
    found = shared.read()
    if found is None and plan is None:
        raise StudyError(f"{shared.folder} has no study: must hold one. Start the study there first.")
    before, stored = found or (None, [])
    if before is not None:
        plan = before if plan is None else _continued(shared.folder, before, plan)
    assert plan is not None
    accepted: set[str] = set()
    records = []
    for record in stored:
        if record.point not in accepted:
            records.append(record)
            accepted |= {record.point} if record.accepted else set()
    for point in plan.points():
        result = run_folder(shared.folder, point.levels, point.seed) / RESULT
        if point.id not in accepted and result.exists():
            records.append(_read_result(result, point))
    if not records and (plan.registration is None or plan.changes()):
        plan = _registered(plan)  # nobody has seen a result
    if (plan, records) != (before, stored):
        shared.write(plan, records)
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
