"""The report of a study: everything that a reader needs, made anew from the study's records alone."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table as TerminalTable

from dynops.ablation.effects import Effects, effects
from dynops.ablation.figures import all_figures
from dynops.ablation.plan import Plan
from dynops.ablation.report_text import PAGES, SERVER, report_text, verdict_sentences
from dynops.ablation.results import counted
from dynops.ablation.store import read_study
from dynops.ablation.tables import terminal_tables
from dynops.ablation.tensorboard import write_run, write_study
from dynops.errors import StudyError
from dynops.records import RunRecord, write_atomically

TEMPORARY = ".report-"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a report says, and where it was written."""

    folder: Path
    """The study's folder: it holds `report.md`, `effects.json`, `figures/` and `tensorboard/`."""
    plan: Plan
    """What was decided before the first run."""
    effects: Effects
    """Cells, effects and verdicts."""
    text: str
    """The text of `report.md`."""
    figures: Mapping[str, Path]
    """Files of the figures, by tag."""

    def tables(self) -> list[TerminalTable]:
        """Make the tables of cells and confirmatory effects that a terminal shows."""
        return terminal_tables(self.effects, self.plan)

    def verdicts(self) -> list[tuple[str, str]]:
        """Return, for each hypothesis, `H1 is supported` and its claim with what it lacks if it is undecided."""
        return verdict_sentences(self.effects)

    def pages(self) -> dict[str, str]:
        """Return the addresses of TensorBoard's pages, by what they show, for a server at its usual port."""
        return {name: f"{SERVER}/{page}" for name, page in PAGES.items()}


def report(folder: Path) -> Report:
    """Write a study's report, effects, figures and TensorBoard files, from its `records.jsonl` alone.

    Equal records give an equal `report.md` and `effects.json`. Everything is made beside the old report and then put in
    its place, so that a kill leaves whole files; one process at a time may report on a folder.

    Args:
        folder: the study's folder; its design may be incomplete.
    Raises:
        StudyError: the folder holds no study, or no run of it has a result yet.
        RecordError: a line is not a record, or a record does not fit the plan.
    """
    plan, records = read_study(folder)
    _check_results(folder, records)
    found = effects(records, plan)
    drawn = all_figures(plan, records, found)
    files = {tag: Path("figures") / _file_name(tag) for tag in drawn}
    text = report_text(plan, records, found, files)
    with _temporary(folder) as beside:
        _write_figures(beside, drawn, files)
        write_study(beside / "tensorboard", plan, records, found, drawn)
        for record in counted(records, plan):
            write_run(beside / "tensorboard", plan, record)
        for part in ("figures", "tensorboard"):
            _swap(beside / part, folder / part)
        write_atomically(folder / "effects.json", json.dumps(found.to_plain(), indent=1, allow_nan=False) + "\n")
        write_atomically(folder / "report.md", text)
    return Report(
        folder=folder,
        plan=plan,
        effects=found,
        text=text,
        figures={tag: folder / file for tag, file in files.items()},
    )


def _check_results(folder: Path, records: Sequence[RunRecord]) -> None:
    if any(record.accepted for record in records):
        return
    reasons = [record.reason.strip().splitlines()[-1] for record in records if record.reason.strip()]
    first = f" The first failure: {reasons[0]}" if reasons else ""
    raise StudyError(
        f"{folder} has 0 results and {len(records)} failures: a report needs one result or more. "
        f"Run the study first.{first}"
    )


def _file_name(tag: str) -> str:
    return tag.replace("/", "-").replace(" ", "-") + ".png"


def _write_figures(folder: Path, figures: Mapping[str, Figure], files: Mapping[str, Path]) -> None:
    (folder / "figures").mkdir()
    for tag, figure in figures.items():
        figure.savefig(folder / files[tag], metadata={"Software": None})


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """Give a folder beside the report, and remove it and those that killed reports left behind."""
    for left in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(left, ignore_errors=True)
    beside = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder))
    try:
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _swap(new: Path, old: Path) -> None:
    if old.exists():
        os.replace(old, new.with_name(f"{new.name}.old"))
    os.replace(new, old)
