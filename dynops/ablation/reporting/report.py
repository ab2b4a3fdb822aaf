"""The report of a study: everything that a reader needs, made anew from the study's records alone."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table as TerminalTable

from dynops.ablation.effects import Effects, effects
from dynops.ablation.plan import Plan
from dynops.ablation.reporting.beside import beside, put_in_place
from dynops.ablation.reporting.document import Picture, to_markdown
from dynops.ablation.reporting.drawing import png
from dynops.ablation.reporting.figures import all_figures
from dynops.ablation.reporting.page import to_page
from dynops.ablation.reporting.report_text import pages, report_document, verdict_sentences
from dynops.ablation.reporting.results import counted
from dynops.ablation.reporting.tables import terminal_tables
from dynops.ablation.reporting.tensorboard import write_run, write_study
from dynops.ablation.store import read_study
from dynops.errors import StudyError
from dynops.records import RunRecord, write_atomically

CAPTIONS = {
    "effects/": "Filled marks are confirmatory, hollow ones exploratory. Intervals are not adjusted for their number; "
    "the verdicts in the tables are, where they are confirmatory. Within the grey band two cells count as equivalent.",
    "factors/": "Lines that are not parallel hint at an interaction; the tables say how surely. Faint marks are single "
    "seeds.",
    "over ": "An effect in each regime. Where the regime has a scale, the dashed line is the change of sign, and the "
    "orange band holds all scales that may be it.",
    "outcome/cost": "A cell on the grey line has the best mean at no more of that cost. Large marks are on the front "
    "of outcome and both costs in most resamples of the seeds.",
    "outcome/learning": "Means over the seeds of complete runs; bands are intervals over seeds.",
    "shares/attribution": "Each bar begins where the one above ends, so that they add up to the whole change. Lines "
    "are intervals, each of its own share.",
    "shares/variance": "What each factor and each interaction explains of the differences between cells.",
    "power/": "The smallest effect that a number of seeds shows. Dots below their lines are estimates that are smaller "
    "than what the present seeds can show.",
    "kernels/": "Kernels that the trained network made for a few images.",
}
"""How the figures of a group are read, by the start of their tags."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a report says, and where it was written."""

    folder: Path
    """The study's folder: it holds `report.md`, `report.html`, `effects.json`, `figures/` and `tensorboard/`."""
    plan: Plan
    """What was decided before the first run."""
    effects: Effects
    """Cells, effects and verdicts."""
    text: str
    """The text of `report.md`."""
    html: Path
    """The same as a page: one file that holds its figures."""
    figures: Mapping[str, Path]
    """Files of the figures, by tag."""

    def tables(self) -> list[TerminalTable]:
        """Make the tables of cells and confirmatory effects that a terminal shows."""
        return terminal_tables(self.effects, self.plan)

    def verdicts(self) -> list[tuple[str, str]]:
        """Return, for each hypothesis, `H1 is supported` and its claim with what it lacks if it is undecided."""
        return verdict_sentences(self.plan, self.effects)

    def pages(self) -> dict[str, str]:
        """Return the addresses of TensorBoard's pages, by what they show, for a server at its usual port."""
        return pages(self.plan)


def report(folder: Path) -> Report:
    """Write a study's report, effects, figures and TensorBoard files, from its `records.jsonl` alone.

    Equal records give an equal `report.md`, `report.html` and `effects.json`. Everything is made beside the old report
    and then put in its place, so that a kill leaves whole files; one process at a time may report on a folder.

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
    pictures = _pictures(drawn)
    images = {tag: png(figure) for tag, figure in drawn.items()}
    document = report_document(plan, records, found, pictures)
    text = to_markdown(document)
    with beside(folder) as made:
        _write_figures(made, images, pictures)
        page = to_page(document, made)
        write_study(made / "tensorboard", plan, records, found, images)
        for record in counted(records, plan):
            write_run(made / "tensorboard", plan, record)
        put_in_place(made, folder)
        write_atomically(folder / "effects.json", json.dumps(found.to_plain(), indent=1, allow_nan=False) + "\n")
        write_atomically(folder / "report.html", page)
        write_atomically(folder / "report.md", text)
    return Report(
        folder=folder,
        plan=plan,
        effects=found,
        text=text,
        html=folder / "report.html",
        figures={tag: folder / picture.file for tag, picture in pictures.items()},
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


def _pictures(figures: Mapping[str, Figure]) -> dict[str, Picture]:
    """Name each figure, say what it shows, and give it a file of its own."""
    found: dict[str, Picture] = {}
    taken: set[str] = set()
    for tag, figure in figures.items():
        stem = re.sub(r"[^\w=,.]+", "-", tag).strip("-")
        name = next(each for number in range(len(figures) + 1) if (each := f"{stem}{number or ''}") not in taken)
        taken.add(name)
        title = " ".join(figure.get_suptitle().split())
        caption = next((text for start, text in CAPTIONS.items() if tag.startswith(start)), "")
        file = Path("figures") / f"{name}.png"
        found[tag] = Picture(name=tag.partition("/")[2], title=title, caption=caption, file=file)
    return found


def _write_figures(folder: Path, images: Mapping[str, bytes], pictures: Mapping[str, Picture]) -> None:
    (folder / "figures").mkdir()
    for tag, image in images.items():
        (folder / pictures[tag].file).write_bytes(image)
