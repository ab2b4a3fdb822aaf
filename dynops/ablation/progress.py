"""One view of a whole study while it runs, read from its folder: what is done, what runs, and when it will end."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from rich.text import Text

from dynops.ablation.plan import DesignPoint, Plan
from dynops.ablation.shared import Shared
from dynops.ablation.store import Tail, read_plan
from dynops.records import RunRecord, cell_name

ROWS = 12  # cells that are shown
PAUSE = 0.5  # seconds between two looks at what others do, during a run


@dataclass(kw_only=True)
class _Cell:
    """The results of a cell so far, in numbers that cost the same however many there are."""

    best: float
    runs: int = 0
    total: float = 0.0

    @property
    def mean(self) -> float:
        return self.total / self.runs


class Progress:
    """A line for each finished run, the cells so far, and a bar over all runs with the time that is left."""

    def __init__(self, shared: Shared) -> None:
        """Start at the results that are there already."""
        shared.look()
        self._plan = read_plan(shared.folder, Plan, "study")
        self._shared, self._tail = shared, Tail(shared.folder)
        self._looked = time.monotonic()
        self._total = len(self._plan.seeds) * len(self._plan.cell_levels())
        self._results: dict[str, _Cell] = {}
        self.done = 0
        """How many points have a result."""
        self._failed: set[str] = set()
        self._diverged = 0
        self._running = self._now = ""
        self._console = Console()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = _Bars(self._above, *columns, TextColumn("left"), TimeRemainingColumn(), console=self._console)
        for record in self._tail.read():
            self._count(record)
        self._bar = self._bars.add_task(self._plan.name, total=self._total, completed=self.done)
        if self.done:
            self.say(f"{self.done} of {self._total} runs were done before; going on.")

    @property
    def ended(self) -> int:
        """How many runs have ended, however."""
        return self.done + len(self._failed)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        if kind is None and self._failed:
            count = f"{len(self._failed)} run{'s' if len(self._failed) > 1 else ''}"
            self.say(f"{count} failed. `retry_failed` (--retry-failed) runs what failed again, and nothing else.")
        if kind is KeyboardInterrupt:
            self.say(
                f"Interrupted with {self.done} of {self._total} runs done. The same command goes on from here.",
            )

    def say(self, text: str) -> None:
        """Print a line above the view."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def refresh(self) -> None:
        """Add a line for each run that has ended since the last call, whoever ran it, and count what runs."""
        self._looked = time.monotonic()
        self._shared.look()
        for record in self._tail.read():
            self._count(record)
            self._line(record)
        counts = {"running": self._shared.running(), "failed": len(self._failed), "diverged": self._diverged}
        said = [self._plan.name, *(f"{count} {what}" for what, count in counts.items() if count)]
        self._bars.update(self._bar, completed=self.done, description=", ".join(said))

    def start(self, points: Sequence[DesignPoint]) -> None:
        """Show which points of a cell this process runs."""
        seeds = ", ".join(str(point.seed) for point in points)
        self._running = f"{cell_name(points[0].levels)} seed{'s' if len(points) > 1 else ''} {seeds}"
        self._now = self._running
        self.refresh()

    def epoch(self, metrics: Mapping[str, float]) -> None:
        """Show how far the run of this process is."""
        self._now = f"{self._running}, epoch {int(metrics['epoch'])}, loss {metrics['loss']:.3f}"
        if time.monotonic() - self._looked > PAUSE:
            self.refresh()

    def wait(self, others: int) -> None:
        """Show that nothing is left but what others run."""
        now = f"Waiting for {others} run{'s' if others > 1 else ''} of other workers."
        if now != self._now:
            self.say(now)
        self._now = now
        self.refresh()

    def _above(self) -> list[RenderableType]:
        """What stands above the bar, where somebody looks on: the best cells so far, and what this process does."""
        if not self._console.is_terminal:
            return []
        best = sorted(self._results, key=lambda cell: self._results[cell].mean, reverse=self._plan.higher_is_better)
        table = Table("cell", "runs", f"mean {self._plan.outcome}", "best", box=SIMPLE_HEAD, padding=(0, 1))
        for cell in best[:ROWS]:
            results = self._results[cell]
            table.add_row(cell, str(results.runs), f"{results.mean:.4f}", f"{results.best:.4f}")
        if len(best) > ROWS:
            table.add_row(f"and {len(best) - ROWS} more", "", "", "")
        return [*([table] if best else []), *([Text(self._now)] if self._now else [])]

    def _count(self, record: RunRecord) -> None:
        if record.accepted:
            value = record.metrics[self._plan.outcome]
            seen = self._results.setdefault(record.cell, _Cell(best=value))
            seen.best = (max if self._plan.higher_is_better else min)(seen.best, value)
            seen.total += value
            seen.runs += 1
            self.done += 1
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
