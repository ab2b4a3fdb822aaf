"""Learning curves over seeds, of one cell or averaged over several."""

from collections.abc import Iterable, Mapping, Sequence

from dynops.ablation.plan import Plan
from dynops.ablation.reporting.results import cell_of, counted
from dynops.ablation.verdicts import Interval, mean_interval
from dynops.records import RunRecord

Curve = Mapping[int, float]
"""A value by epoch."""
Curves = Mapping[str, Mapping[int, Curve]]
"""The curve of each seed, by cell."""


def learning(plan: Plan, records: Sequence[RunRecord], key: str) -> dict[str, dict[int, dict[int, float]]]:
    """Return an entry of the histories of all complete runs, by cell in the order of the plan, seed and epoch.

    Args:
        plan: gives the order of the cells.
        records: the study's records; a diverged run has no curve to speak of, and is left out.
        key: the entry, such as `train_loss`.
    """
    found: dict[str, dict[int, dict[int, float]]] = {name: {} for name in plan.cell_names()}
    for record in counted(records, plan):
        curve = {
            int(entry.get("epoch", number)): entry[key]
            for number, entry in enumerate(record.history, start=1)
            if key in entry
        }
        if record.status == "complete" and curve:
            found[cell_of(record, plan)][record.seed] = curve
    return {name: seeds for name, seeds in found.items() if seeds}


def averaged(curves: Curves, cells: Sequence[str]) -> dict[int, list[float]]:
    """Return the mean over cells in each seed, by epoch; a seed counts where it has all of the cells.

    Args:
        curves: as `learning` gives them.
        cells: names of the cells; one alone is left as it is.
    """
    of_cells = [curves.get(cell, {}) for cell in cells]
    seeds = [seed for seed in of_cells[0] if all(seed in each for each in of_cells)]
    by_epoch: dict[int, list[float]] = {}
    for seed in seeds:
        for epoch in of_cells[0][seed]:
            values = [each[seed][epoch] for each in of_cells if epoch in each[seed]]
            if len(values) == len(cells):
                by_epoch.setdefault(epoch, []).append(sum(values) / len(values))
    return dict(sorted(by_epoch.items()))


def with_intervals(by_epoch: Mapping[int, Sequence[float]], level: float) -> dict[int, tuple[float, Interval | None]]:
    """Return the mean over seeds and its t interval at 1 - level in each epoch."""
    return {epoch: mean_interval(values, level) for epoch, values in by_epoch.items()}


def curve_keys(plan: Plan, records: Iterable[RunRecord]) -> list[str]:
    """Return the entries of histories that are shown, of those that there are: training loss, then the outcome."""
    present = {key for record in records if record.status == "complete" for entry in record.history for key in entry}
    return [key for key in dict.fromkeys(("train_loss", history_key(plan.outcome))) if key in present]


def history_key(outcome: str) -> str:
    """Name the entry of a record's history that becomes the outcome: `best_accuracy` comes from `accuracy`."""
    return outcome.removeprefix("best_")
