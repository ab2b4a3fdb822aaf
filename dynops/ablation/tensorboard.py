"""TensorBoard files of a study: a run for each cell and seed, and a root run for what holds over the seeds.

TensorBoard reads one experiment config of a whole log folder, so only the root run holds one. The seeds of a cell share
a trial id, and the seed is no hyperparameter: the HParams page then has a row for each cell, averaged over its seeds.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from matplotlib.figure import Figure
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.hparams.summary_v2 import Discrete, HParam, Metric, hparams_config_pb, hparams_pb
from torch.utils.tensorboard import SummaryWriter

from dynops.ablation.drawing import pixels
from dynops.ablation.effects import Effects
from dynops.ablation.plan import Plan
from dynops.ablation.report_text import verdict_text
from dynops.ablation.results import SCALES, cell_of, counted
from dynops.ablation.tables import cell_table, effect_tables
from dynops.ablation.verdicts import FEWEST_SEEDS, Effect, mean_interval
from dynops.records import RunRecord

TAGS = {"train_loss": "train/loss", "loss": "evaluation/loss", "accuracy": "evaluation/accuracy"}
"""Where the entries of a history go; any other entry keeps its name."""
COSTS = ("parameters", "macs", "step_milliseconds")
"""Costs of a run that stand beside its metrics."""
NAMES = {"final/diverged": "share diverged", "final/macs": "MACs", "final/step_milliseconds": "step, ms"}
"""How the HParams page calls a metric that does not go by its own name."""
REASONS = {"failed": "run/failure", "diverged": "run/divergence"}
EVIDENCE = "with more seeds"
"""Group of the tags that grow with the seeds: TensorBoard opens the first groups only, and this one sorts last."""


def write_run(folder: Path, plan: Plan, record: RunRecord) -> Path:
    """Write one run's curves, final metrics, levels and status; an earlier writing of the run is replaced.

    Args:
        folder: the study's log folder.
        plan: gives the order of the factors.
        record: the run; a failed one ends as a failure, a diverged one as a result.
    Returns:
        The run's own folder, `<cell>/seed=<seed>` in the log folder.
    """
    cell = cell_of(record, plan)
    run = folder / cell / f"seed={record.seed}"
    for stale in run.glob("events.out.tfevents.*"):
        stale.unlink()
    end = time.time()
    start = end - record.seconds
    with _writer(run) as writer:
        _add(writer, hparams_pb(dict(record.levels), trial_id=cell, start_time_secs=start), start)
        for number, entry in enumerate(record.history, start=1):
            moment = start + record.seconds * number / len(record.history)
            for key, value in entry.items():
                if key != "epoch":
                    writer.add_scalar(TAGS.get(key, key), value, int(entry.get("epoch", number)), walltime=moment)
        if record.accepted:
            for tag, value in _finals(record).items():
                writer.add_scalar(tag, value, len(record.history), walltime=end)
        if record.status in REASONS:
            writer.add_text(REASONS[record.status], _indented(record.reason), walltime=end)
        _add(writer, _session_end(api_pb2.STATUS_SUCCESS if record.accepted else api_pb2.STATUS_FAILURE, end), end)
    return run


def write_study(
    folder: Path, plan: Plan, records: Sequence[RunRecord], effects: Effects, figures: Mapping[str, Figure]
) -> None:
    """Write the root run: the experiment config, tables as text, figures, and the evidence as seeds come in.

    TensorBoard lists runs by their first moment; this one is dated before all runs, so that it heads the list.

    Args:
        folder: the study's log folder, which holds no other root run.
        plan: what was decided before the first run.
        records: the study's records, for the metrics that exist.
        effects: what the records say.
        figures: figures by tag.
    """
    moment = time.time() - max((record.seconds for record in records), default=0.0) - 1
    with _writer(folder) as writer:
        factors = [HParam(factor.name, Discrete(list(factor.levels), dtype=str)) for factor in plan.factors]
        _add(writer, hparams_config_pb(hparams=factors, metrics=_metrics(plan, counted(records, plan))), moment)
        writer.add_text("report/1 verdicts", f"**{plan.question}**\n\n{verdict_text(effects)}")
        for number, table in enumerate((*effect_tables(effects, plan), cell_table(effects)), start=2):
            if table.rows:
                writer.add_text(f"report/{number} {table.title.lower()}", table.to_markdown())
        for tag, figure in figures.items():
            writer.add_image(tag, pixels(figure), dataformats="HWC")
        _write_evidence(writer, plan, effects)


def evidence(effect: Effect, plan: Plan, level: float) -> dict[int, tuple[float, float, float]]:
    """Return an effect's estimate and both ends of its interval by the number of seeds that were complete.

    Args:
        effect: gives its value in each complete seed.
        plan: gives the order of the seeds, and the unit of the numbers.
        level: one minus the confidence.
    """
    values = [effect.by_seed[seed] * SCALES[plan.unit] for seed in plan.seeds if seed in effect.by_seed]
    sums = {}
    for n in range(FEWEST_SEEDS, len(values) + 1):
        mean, interval = mean_interval(values[:n], level)
        if interval is not None:
            sums[n] = (mean, *interval)
    return sums


def _write_evidence(writer: SummaryWriter, plan: Plan, effects: Effects) -> None:
    groups = {
        "hypotheses": [
            (f"{verdict.name}: {part.name}", part) for verdict in effects.verdicts for part in verdict.parts
        ],
        "confirmatory effects": [(effect.name, effect) for effect in effects.effects if effect.in_family],
        "exploratory effects": [
            (effect.name, effect) for effect in effects.effects if not effect.in_family and effect.kind != "simple"
        ],
    }
    layout: dict[str, dict[str, list[str | list[str]]]] = {}
    for group, members in groups.items():
        for title, effect in members:
            tags = [f"{EVIDENCE}/{_plain_tag(title)}/{part}" for part in ("estimate", "low", "high")]
            sums = evidence(effect, plan, effects.level)
            for n, numbers in sums.items():
                for tag, number in zip(tags, numbers, strict=True):
                    writer.add_scalar(tag, number, n)
            if sums:
                layout.setdefault(f"{group} {EVIDENCE}", {})[title] = ["Margin", tags]
    if layout:
        writer.add_custom_scalars(layout)


def _plain_tag(title: str) -> str:
    """Return a title without round brackets: a margin chart stays empty where its tags hold them."""
    return title.replace("(", "[").replace(")", "]")


def _metrics(plan: Plan, records: Iterable[RunRecord]) -> list[Metric]:
    tags = dict.fromkeys(tag for record in records if record.accepted for tag in _finals(record))
    first = [f"final/{plan.outcome}", "final/diverged", *(f"final/{name}" for name in COSTS)]
    ordered = [*first, *(tag for tag in tags if tag not in first)]
    return [Metric(tag, display_name=NAMES.get(tag, tag.removeprefix("final/"))) for tag in ordered]


def _finals(record: RunRecord) -> dict[str, float]:
    finals = {f"final/{name}": value for name, value in record.metrics.items()}
    return {
        **finals,
        "final/diverged": float(record.status == "diverged"),
        **{f"final/{name}": float(getattr(record, name)) for name in COSTS},
    }


def _session_end(status: int, end: float) -> Summary:
    data = plugin_data_pb2.HParamsPluginData(
        session_end_info=plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=end)
    )
    summary = Summary()
    summary.value.add(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(data),
        tensor=metadata.NULL_TENSOR,
    )
    return summary


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _add(writer: SummaryWriter, summary: Summary, moment: float) -> None:
    writer._get_file_writer().add_summary(summary, walltime=moment)


@contextmanager
def _writer(folder: Path) -> Iterator[SummaryWriter]:
    writer = SummaryWriter(str(folder))
    try:
        yield writer
    finally:
        writer.close()
