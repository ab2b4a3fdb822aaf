"""One view of a whole study while it runs, read from its folder: what is done, what runs, and when it will end."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table

from dynops.ablation.leases import Leases
from dynops.ablation.ledger import DesignPoint
from dynops.ablation.plan import Plan
from dynops.ablation.store import Tail, read_plan
from dynops.records import RunRecord, cell_name

ROWS = 12  # cells that are shown


class Progress:
    """A line for each finished run, the cells so far, and a bar over all runs with the time that is left."""

    def __init__(self, folder: Path) -> None:
        """Start at the results that are there already."""
        self._plan = read_plan(folder, Plan, "study")
        self._leases, self._tail = Leases(folder), Tail(folder)
        self._total = len(self._plan.seeds) * len(self._plan.cell_levels())
        self._results: dict[str, list[float]] = {}
        self._failed: set[str] = set()
        self._diverged = 0
        self._running = ""
        self._console = Console()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = _Bars(self._cells, *columns, TextColumn("left"), TimeRemainingColumn(), console=self._console)
        for record in self._tail.read():
            self._count(record)
        self._bar = self._bars.add_task(self._plan.name, total=self._total, completed=self.done)
        if self.done:
            self.say(f"{self.done} of {self._total} runs were done before; going on.")

    @property
    def done(self) -> int:
        """How many points have a result."""
        return sum(len(results) for results in self._results.values())

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        if kind is KeyboardInterrupt:
            self.say(
                f"Interrupted with {self.done} of {self._total} runs done. The same command goes on from here.",
            )

    def say(self, text: str) -> None:
        """Print a line above the view."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def refresh(self) -> None:
        """Add a line for each run that has ended since the last call, whoever ran it, and count what runs."""
        for record in self._tail.read():
            self._count(record)
            self._line(record)
        counts = {"running": len(self._leases), "failed": len(self._failed), "diverged": self._diverged}
        said = [self._plan.name, *(f"{count} {what}" for what, count in counts.items() if count), self._running]
        self._bars.update(self._bar, completed=self.done, description=", ".join(filter(None, said)))

    def start(self, points: Sequence[DesignPoint]) -> None:
        """Show which points of a cell this process runs."""
        seeds = ", ".join(str(point.seed) for point in points)
        self._running = f"{cell_name(points[0].levels)} seed{'s' if len(points) > 1 else ''} {seeds}"
        self._bars.update(self._bar, description=self._running)

    def epoch(self, metrics: Mapping[str, float]) -> None:
        """Show how far the run of this process is."""
        number = int(metrics["epoch"])
        self._bars.update(self._bar, description=f"{self._running}, epoch {number}, loss {metrics['loss']:.3f}")

    def wait(self, others: int) -> None:
        """Show that nothing is left but what others run."""
        self._running = f"waiting for {others} run{'s' if others > 1 else ''} of other workers"
        self.refresh()

    def _cells(self) -> list[RenderableType]:
        """A table of the cells so far, the best first, where somebody looks on."""
        if not (self._results and self._console.is_terminal):
            return []
        best = sorted(self._results, key=lambda cell: fmean(self._results[cell]), reverse=self._plan.higher_is_better)
        table = Table("cell", "runs", f"mean {self._plan.outcome}", "best", box=SIMPLE_HEAD, padding=(0, 1))
        for cell in best[:ROWS]:
            results = self._results[cell]
            top = (max if self._plan.higher_is_better else min)(results)
            table.add_row(cell, str(len(results)), f"{fmean(results):.4f}", f"{top:.4f}")
        if len(best) > ROWS:
            table.add_row(f"and {len(best) - ROWS} more", "", "", "")
        return [table]

    def _count(self, record: RunRecord) -> None:
        if record.accepted:
            self._results.setdefault(record.cell, []).append(record.metrics[self._plan.outcome])
            self._failed.discard(record.point)
            self._diverged += record.status == "diverged"
        else:
            self._failed.add(record.point)

    def _line(self, record: RunRecord) -> None:
        if record.accepted:
            value = f"{self._plan.outcome} {record.metrics[self._plan.outcome]:.4f}, {record.seconds:.1f} s"
        else:
            value = record.reason.strip().splitlines()[-1]
        note = "" if record.status == "complete" else f" ({record.status})"
        self.say(f"{record.cell} seed {record.seed}: {value}{note}")


class _Bars(Bars):
    """The bar, with something above it."""

    def __init__(
        self, above: Callable[[], Iterable[RenderableType]], *columns: ProgressColumn, console: Console
    ) -> None:
        self._above = above
        super().__init__(*columns, console=console)

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from self._above()
        yield self.make_tasks_table(self.tasks)
