"""The report of a search, made anew from its records alone; all of it is exploratory, and all of it says so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table as TerminalTable

from dynops.ablation.reporting.beside import beside, put_in_place
from dynops.ablation.reporting.document import Document, Picture, Section, to_markdown
from dynops.ablation.reporting.drawing import png
from dynops.ablation.reporting.page import to_page
from dynops.ablation.reporting.report_text import SERVER
from dynops.ablation.searches.figures import search_figures
from dynops.ablation.searches.importance import importance
from dynops.ablation.searches.plan import SearchPlan, read_search
from dynops.ablation.searches.tables import EXPLORATORY, best_table, ended, front_table, importance_table, setup
from dynops.ablation.searches.tensorboard import write_search_run, write_trial
from dynops.ablation.searches.trials import PointTrial, results, trials_of
from dynops.errors import StudyError
from dynops.records import write_atomically

PAGES = {
    "trials": "#hparams",
    "figures": "#images&regexInput=%5E%5C.%24",
    "tables": "#text&regexInput=%5E%5C.%24",
    "curves": "#scalars",
}
FILES = (
    "`records.jsonl` holds the plan and every run, and all else is made from it: `report.html` this report as a page "
    "of its own, `figures/` the figures, `tensorboard/` what `tensorboard --logdir tensorboard` shows: "
    + ", ".join(f"[{name}]({SERVER}/{page})" for name, page in PAGES.items())
    + ". `journal.log` shows the search to Optuna's tools."
)
CAPTIONS = {
    "front": "A mark is a trial. Full marks are on the front of all objectives; the line is the front of the two that "
    "its panel shows. Numbers are those of the trials in the tables.",
    "importance": "Main effects alone, in a random forest on the trials: what a factor lacks may be in interactions.",
    "history": "The outcome of each trial in the order in which they ended, with the best so far; with several "
    "objectives also when the trials of the final front were found.",
}

Shares = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class SearchReport:
    """What the report of a search says, and where it was written."""

    folder: Path
    """The search's folder: it holds `report.md`, `report.html`, `figures/` and `tensorboard/`."""
    plan: SearchPlan
    """What was decided before the first run."""
    trials: Sequence[PointTrial]
    """Every point that was tried."""
    text: str
    """The text of `report.md`."""
    figures: Mapping[str, Path]
    """Files of the figures, by tag."""

    def tables(self) -> list[TerminalTable]:
        """Make the table of the front that a terminal shows."""
        table = front_table(self.plan, self.trials, whole_points=True)
        return [table.to_terminal(*table.columns)]

    def closing(self) -> str:
        """Say what the table is worth, and how to look at the rest."""
        lines = [
            EXPLORATORY.replace("**", ""),
            f"\nThe whole report: {self.folder / 'report.md'}",
            f"As a page of its own: {self.folder / 'report.html'}",
            f"In TensorBoard: tensorboard --logdir {self.folder / 'tensorboard'}",
            *(f"  {name}: {SERVER}/{page}" for name, page in PAGES.items()),
        ]
        return "\n".join(lines)


def search_report(folder: Path) -> SearchReport:
    """Write a search's report, figures and TensorBoard files, from its `records.jsonl` alone.

    Equal records give an equal `report.md` and `report.html`. Everything is made beside the old report and then put in
    its place, so that a kill leaves whole files; one process at a time may report on a folder.

    Args:
        folder: the search's folder; the search may be unfinished.
    Raises:
        StudyError: the folder holds no search, or no trial of it has a result yet.
        RecordError: a line is not a record.
    """
    plan, records = read_search(folder)
    trials = trials_of(plan, records)
    if not results(trials):
        raise StudyError(
            f"{folder} has 0 results and {len(trials)} trials: a report needs one result or more. Run the search first."
        )
    shares = {
        objective.metric: found
        for place, objective in enumerate(plan.objectives)
        if (found := importance(plan, trials, place)) is not None
    }
    drawn = search_figures(plan, trials, shares)
    pictures = {tag: _picture(tag, figure) for tag, figure in drawn.items()}
    document = search_document(plan, trials, shares, pictures)
    text = to_markdown(document)
    with beside(folder) as made:
        _write_beside(made, plan, trials, drawn, search_document(plan, trials, shares, {}))
        page = to_page(document, made)
        put_in_place(made, folder)
        write_atomically(folder / "report.html", page)
        write_atomically(folder / "report.md", text)
    files = {tag: folder / picture.file for tag, picture in pictures.items()}
    return SearchReport(folder=folder, plan=plan, trials=trials, text=text, figures=files)


def search_document(
    plan: SearchPlan, trials: Sequence[PointTrial], shares: Shares, pictures: Mapping[str, Picture]
) -> Document:
    """Put the report of a search together.

    Args:
        plan: what was decided before the first run.
        trials: every point that was tried; equal trials give an equal document.
        shares: what each factor explains, by objective and factor.
        pictures: figures by tag.
    """

    def shown(tag: str) -> list[Picture]:
        return [pictures[tag]] if tag in pictures else []

    fronts = [front_table(plan, trials)] if len(plan.objectives) > 1 else []
    factors, best = importance_table(plan, shares), best_table(plan, trials)
    sections = [
        Section(title="What this is worth", blocks=(EXPLORATORY,)),
        Section(title="Setup", blocks=(setup(plan, trials),)),
        *(Section(title=front.title, blocks=(front, *shown("front"))) for front in fronts),
        Section(title=best.title, blocks=(best, *shown("history"))),
        Section(title=factors.title, blocks=(factors if shares else factors.note, *shown("importance"))),
        Section(title="Failed, diverged and pruned trials", blocks=ended(plan, trials)),
        Section(title="Files", blocks=(FILES,)),
    ]
    summary = (
        "**exploratory search, not an ablation**",
        f"{len(results(trials))} results of {len(trials)} trials",
        *(f"{len(front.rows)} on the front" for front in fronts),
    )
    return Document(title=plan.name, question=plan.question, summary=summary, sections=tuple(sections))


def _picture(tag: str, figure: Figure) -> Picture:
    title = " ".join(figure.get_suptitle().split())
    return Picture(name=tag, title=title, caption=CAPTIONS[tag], file=Path("figures") / f"{tag}.png")


def _write_beside(
    folder: Path, plan: SearchPlan, trials: Sequence[PointTrial], drawn: Mapping[str, Figure], document: Document
) -> None:
    (folder / "figures").mkdir()
    for tag, figure in drawn.items():
        (folder / "figures" / f"{tag}.png").write_bytes(png(figure))
    write_search_run(folder / "tensorboard", plan, trials, document, drawn)
    for trial in trials:
        for record in trial.records:
            write_trial(folder / "tensorboard", plan, record)
