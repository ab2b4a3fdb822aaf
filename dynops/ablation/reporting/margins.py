"""Charts with margins for TensorBoard's custom scalars: learning curves over seeds, and evidence with more seeds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.custom_scalar import layout_pb2, metadata

from dynops.ablation.effects import Effects
from dynops.ablation.plan import Plan
from dynops.ablation.reporting.drawing import MOST_CELLS
from dynops.ablation.reporting.learning import averaged, curve_keys, learning, with_intervals
from dynops.ablation.reporting.results import SCALES, comparable
from dynops.ablation.verdicts import FEWEST_SEEDS, Effect, mean_interval
from dynops.records import RunRecord, cell_name

TAGS = {"train_loss": "train/loss", "loss": "evaluation/loss", "accuracy": "evaluation/accuracy"}
"""Where the entries of a history go; any other entry keeps its name."""
EVIDENCE = "with more seeds"
"""Group of the tags that grow with the seeds: TensorBoard opens the first groups only, and this one sorts last."""
MARGINS = "with margins"
"""Group of the mean curves' tags."""
MEANS = "mean"
"""Folder of the runs that hold mean curves; each has a colour of its own in every chart."""
CELL = "cell"
"""Names the charts and runs of cells, apart from those of factors: TensorBoard's colours then repeat less."""
EVERY = 50
"""Twice this number of seeds are looked at one by one."""
ROOT_RUN = "."
ENDS = ("estimate", "low", "high")

Sums = Mapping[int, tuple[float, float, float]]
"""Estimate and both ends of its interval by step."""
Point = tuple[str, int, float]
"""Tag, step and value."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart with margins, over one run or several that have the same tags."""

    category: str
    title: str
    tag: str
    """What the tags of the estimate and of both ends begin with."""
    curves: Mapping[str, Sums]
    """What is drawn, by run."""
    folded: bool = False
    """Whether its category is closed at first."""

    @property
    def tags(self) -> tuple[str, str, str]:
        """The tags of the estimate, the lower and the upper end, which must not hold round brackets."""
        base = self.tag.replace("(", "[").replace(")", "]")
        return f"{base}/{ENDS[0]}", f"{base}/{ENDS[1]}", f"{base}/{ENDS[2]}"


def mean_curves(plan: Plan, records: Sequence[RunRecord], level: float) -> Iterator[Chart]:
    """Yield charts of the learning curves of each factor's levels, averaged over all other factors, and of each cell.

    Margins are t intervals over the seeds that have all cells of a level; where there are too few, there is no curve.
    A factor whose levels do not meet the same other levels has no chart, and more than 100 cells have none.

    Args:
        plan: the plan of the records.
        records: the study's records.
        level: one minus the confidence of the margins.
    """
    groups = {
        factor.name: {
            f"{factor.name}={each}": [cell_name(cell) for cell in plan.cell_levels() if cell[factor.name] == each]
            for each in factor.levels
        }
        for factor in plan.factors
        if comparable(plan, [factor.name])
    }
    if len(plan.factors) > 1 and len(plan.cell_names()) <= MOST_CELLS:
        groups[CELL] = {name: [name] for name in plan.cell_names()}
    for key in curve_keys(plan, records):
        curves, tag = learning(plan, records, key), TAGS.get(key, key)
        for group, members in groups.items():
            drawn = {
                f"{MEANS}/{'cell/' * (group == CELL)}{name}": sums
                for name, cells in members.items()
                if (sums := _sums(with_intervals(averaged(curves, cells), level)))
            }
            if drawn:
                title = f"{tag} by {group}"
                yield Chart(
                    category=f"learning curves by {group}", title=title, tag=f"{MARGINS}/{group}/{tag}", curves=drawn
                )


def evidence_charts(plan: Plan, effects: Effects) -> Iterator[Chart]:
    """Yield a chart of each effect's estimate and interval by the number of seeds that were complete."""
    groups = {
        "hypotheses": [
            (f"{verdict.name}: {part.name}", part) for verdict in effects.verdicts for part in verdict.parts
        ],
        "confirmatory effects": [(effect.name, effect) for effect in effects.effects if effect.in_family],
        "exploratory effects": [
            (effect.name, effect) for effect in effects.effects if not effect.in_family and effect.kind != "simple"
        ],
    }
    for group, members in groups.items():
        for title, effect in members:
            sums = evidence(effect, plan, effects.level)
            if sums:
                yield Chart(
                    category=f"{group} {EVIDENCE}",
                    title=title,
                    tag=f"{EVIDENCE}/{title}",
                    curves={ROOT_RUN: sums},
                    folded=group == "exploratory effects",
                )


def evidence(effect: Effect, plan: Plan, level: float) -> dict[int, tuple[float, float, float]]:
    """Return an effect's estimate and both ends of its interval by the number of seeds that were complete.

    Of many seeds, not every number is looked at: each is about 2 % more than the one before.

    Args:
        effect: gives its value in each complete seed.
        plan: gives the order of the seeds, and the unit of the numbers.
        level: one minus the confidence.
    """
    values = [effect.by_seed[seed] * SCALES[plan.unit] for seed in plan.seeds if seed in effect.by_seed]
    sums = {}
    for n in _looks(len(values)):
        mean, interval = mean_interval(values[:n], level)
        if interval is not None:
            sums[n] = (mean, *interval)
    return sums


def _looks(seeds: int) -> Iterator[int]:
    """Yield numbers of seeds up to all of them: each one at first, then fewer, so that few are looked at in all."""
    n = FEWEST_SEEDS
    while n < seeds:
        yield n
        n += max(1, n // EVERY)
    if seeds >= FEWEST_SEEDS:
        yield seeds


def points_by_run(charts: Iterable[Chart]) -> dict[str, list[Point]]:
    """Return the points of all charts, by run."""
    points: dict[str, list[Point]] = {}
    for chart in charts:
        for run, sums in chart.curves.items():
            points.setdefault(run, []).extend(
                (tag, step, value)
                for step, values in sums.items()
                for tag, value in zip(chart.tags, values, strict=True)
            )
    return points


def layout_summary(charts: Sequence[Chart]) -> Summary:
    """Return the summary that lays charts out on TensorBoard's page, by category, in the order in which they come."""
    categories: dict[str, layout_pb2.Category] = {}
    for chart in charts:
        place = categories.setdefault(chart.category, layout_pb2.Category(title=chart.category, closed=chart.folded))
        value, lower, upper = chart.tags
        series = layout_pb2.MarginChartContent.Series(value=value, lower=lower, upper=upper)
        place.chart.append(layout_pb2.Chart(title=chart.title, margin=layout_pb2.MarginChartContent(series=[series])))
    layout = layout_pb2.Layout(category=categories.values())
    tensor = TensorProto(dtype="DT_STRING", string_val=[layout.SerializeToString()], tensor_shape=TensorShapeProto())
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME)
    summary = Summary()
    summary.value.add(tag=metadata.CONFIG_SUMMARY_TAG, tensor=tensor, metadata=SummaryMetadata(plugin_data=plugin))
    return summary


def _sums(by_epoch: Mapping[int, tuple[float, tuple[float, float] | None]]) -> dict[int, tuple[float, float, float]]:
    return {epoch: (mean, *interval) for epoch, (mean, interval) in by_epoch.items() if interval is not None}
