"""One view of a whole study while it runs: what is done, what runs, and when it will end."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from dynops.ablation.ledger import DesignPoint
from dynops.ablation.plan import Plan
from dynops.records import RunRecord, cell_name


class Progress:
    """A line for each finished run, and a bar over all runs with the time that is left."""

    def __init__(self, plan: Plan, records: list[RunRecord]) -> None:
        """Start at the results that are there already."""
        self._outcome = plan.outcome
        self._total = len(plan.seeds) * len(plan.cell_levels())
        done = sum(record.accepted for record in records)
        self._console = Console()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Bars(*columns, TextColumn("left"), TimeRemainingColumn(), console=self._console)
        self._bar = self._bars.add_task(plan.name, total=self._total, completed=done)
        self._name = plan.name
        self._running = ""
        if done:
            self._console.print(f"{done} of {self._total} runs were done before; going on.", highlight=False)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        if kind is KeyboardInterrupt:
            done = int(self._bars.tasks[0].completed)
            self._console.print(
                f"Interrupted with {done} of {self._total} runs done. The same command goes on from here.",
                highlight=False,
            )

    def start(self, points: Sequence[DesignPoint]) -> None:
        """Show which points of a cell run."""
        seeds = ", ".join(str(point.seed) for point in points)
        self._running = f"{cell_name(points[0].levels)} seed{'s' if len(points) > 1 else ''} {seeds}"
        self._bars.update(self._bar, description=self._running)

    def epoch(self, metrics: Mapping[str, float]) -> None:
        """Show how far the run is."""
        number = int(metrics["epoch"])
        self._bars.update(self._bar, description=f"{self._running}, epoch {number}, loss {metrics['loss']:.3f}")

    def finish(self, record: RunRecord) -> None:
        """Add a line for a finished run."""
        if record.accepted:
            value = f"{self._outcome} {record.metrics[self._outcome]:.4f}, {record.seconds:.1f} s"
        else:
            value = record.reason.strip().splitlines()[-1]
        note = "" if record.status == "complete" else f" ({record.status})"
        self._console.print(f"{record.cell} seed {record.seed}: {value}{note}", highlight=False, markup=False)
        self._bars.update(self._bar, advance=1 if record.accepted else 0)
