"""One view of a search while it runs: what is tried, what came of it, and when it will end."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dynops.ablation.reporting.results import show
from dynops.ablation.searches.plan import COSTS, SearchPlan
from dynops.ablation.searches.trials import PointTrial, shown_levels


class SearchProgress:
    """A line for each trial, and a bar over all of them with the time that is left."""

    def __init__(self, plan: SearchPlan, trials: Sequence[PointTrial]) -> None:
        """Start at the trials that are there already."""
        self._plan = plan
        self._console = Console()
        done = sum(trial.settled for trial in trials)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=self._console)
        self._bar = self._bars.add_task(plan.name, total=int(min(plan.trials, plan.size)), completed=done)
        self._running = ""
        if done:
            self.say(f"{done} of {plan.trials} trials were done before; going on.")

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        if kind is KeyboardInterrupt:
            done = int(self._bars.tasks[0].completed)
            self.say(f"Interrupted with {done} of {self._plan.trials} trials done. The same command goes on from here.")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def start(self, levels: Mapping[str, str], seed: int) -> None:
        """Show what runs."""
        self._running = f"{' '.join(shown_levels(self._plan, levels))} seed {seed}"
        self._bars.update(self._bar, description=self._running)

    def epoch(self, metrics: Mapping[str, float]) -> None:
        """Show how far the run is."""
        parts = [f"{name} {metrics[name]:.3f}" for name in ("loss",) if name in metrics]
        epoch = f"epoch {int(metrics['epoch'])}" if "epoch" in metrics else ""
        self._bars.update(self._bar, description=", ".join([self._running, epoch, *parts]))

    def finish(self, trial: PointTrial) -> None:
        """Add a line for a trial that ended."""
        if trial.values:
            value = ", ".join(shown_values(self._plan, trial))
        else:
            value = next(record.reason for record in trial.records if not record.accepted).strip().splitlines()[-1]
        note = "" if trial.status == "complete" else f" ({trial.status})"
        self.say(f"{trial.cell}: {value}{note}")
        self._bars.update(self._bar, advance=1 if trial.settled else 0)


def shown_values(plan: SearchPlan, trial: PointTrial) -> list[str]:
    """Write each objective of a trial with its name."""
    return [
        f"{objective.metric} {show_objective(plan, place, trial)}" for place, objective in enumerate(plan.objectives)
    ]


def show_objective(plan: SearchPlan, place: int, trial: PointTrial) -> str:
    """Write one objective of a trial in its unit; a dash without a result."""
    if not trial.values:
        return "-"
    value, objective = trial.values[place], plan.objectives[place]
    if objective.metric in COSTS and value.is_integer():
        return f"{int(value):,}"
    return show(value, objective.unit)
