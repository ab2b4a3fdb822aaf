"""TensorBoard files of a study: a run for each cell and seed, and a root run for what holds over the seeds.

TensorBoard reads one experiment config of a whole log folder, so only the root run holds one. The seeds of a cell share
a trial id, and the seed is no hyperparameter: the HParams page then has a row for each cell, averaged over its seeds.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from struct import unpack

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.hparams.summary_v2 import Discrete, HParam, Metric, hparams_config_pb, hparams_pb
from torch.utils.tensorboard import SummaryWriter

from dynops.ablation.effects import Effects
from dynops.ablation.plan import Plan
from dynops.ablation.reporting.document import section_text
from dynops.ablation.reporting.margins import (
    ROOT_RUN,
    TAGS,
    Point,
    evidence_charts,
    layout_summary,
    mean_curves,
    points_by_run,
)
from dynops.ablation.reporting.report_text import report_document
from dynops.ablation.reporting.results import cell_of, counted, shown_seeds
from dynops.records import RunRecord

COSTS = ("parameters", "macs", "step_milliseconds")
"""Costs of a run that stand beside its metrics."""
NAMES = {"final/diverged": "share diverged", "final/macs": "MACs", "final/step_milliseconds": "step, ms"}
"""How the HParams page calls a metric that does not go by its own name."""
REASONS = {"failed": "run/failure", "diverged": "run/divergence"}
WIDTH = 28
"""Characters at which TensorBoard's text page breaks cells of tables; by itself it breaks words in narrow ones."""
RGBA = 4
"""What TensorBoard calls the colours of our figures."""
AHEAD = 1.0
"""Seconds by which what holds over the seeds is dated before the first run."""


def write_run(folder: Path, plan: Plan, record: RunRecord) -> Path:
    """Write one run's curves, final metrics, levels and status; an earlier writing of the run is replaced.

    Of a study with too many runs only those of the first seeds are written, see `shown_seeds`.

    Args:
        folder: the study's log folder.
        plan: gives the order of the factors.
        record: the run; a failed one ends as a failure, a diverged one as a result.
    Returns:
        The run's own folder, `<cell>/seed=<seed>` in the log folder.
    """
    shown = record.seed in shown_seeds(plan)
    return write_any_run(folder, plan, record) if shown else _run_folder(folder, plan, record)


def write_any_run(folder: Path, plan: Plan, record: RunRecord) -> Path:
    """Write one run as `write_run` does, however many there are."""
    cell, run = cell_of(record, plan), _run_folder(folder, plan, record)
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
    folder: Path, plan: Plan, records: Sequence[RunRecord], effects: Effects, images: Mapping[str, bytes]
) -> None:
    """Write what holds over the seeds: the root run, and a run for the mean curves of each level and of each cell.

    The root run has the experiment config, the report's sections as text, the figures, and the evidence as seeds come
    in. TensorBoard lists runs by their first moment; these are dated before all others, so that they head the list.

    Args:
        folder: the study's log folder, which holds no other root run.
        plan: what was decided before the first run.
        records: the study's records.
        effects: what the records say.
        images: figures by tag, as PNG.
    """
    moment = time.time() - max((record.seconds for record in records), default=0.0) - AHEAD
    with _writer(folder) as writer:
        factors = [HParam(factor.name, Discrete(list(factor.levels), dtype=str)) for factor in plan.factors]
        _add(writer, hparams_config_pb(hparams=factors, metrics=_metrics(plan, counted(records, plan))), moment)
        for number, section in enumerate(report_document(plan, records, effects, {}).sections, start=1):
            question = f"**{plan.question}**\n\n" if number == 1 else ""
            text = question + section_text(section, width=WIDTH)
            writer.add_text(f"report/{number:02} {section.title.lower()}", text, walltime=moment)
        for tag, image in images.items():
            _add(writer, _image(tag, image), moment)
        drawn = [*mean_curves(plan, records, effects.level), *evidence_charts(plan, effects)]
        for name, points in points_by_run(drawn).items():
            if name == ROOT_RUN:
                _write_points(writer, points, moment)
            else:
                with _writer(folder / name) as own:
                    _write_points(own, points, moment + AHEAD / 2)
        if drawn:
            _add(writer, layout_summary(drawn), moment)


def _run_folder(folder: Path, plan: Plan, record: RunRecord) -> Path:
    return folder / cell_of(record, plan) / f"seed={record.seed}"


def _write_points(writer: SummaryWriter, points: Iterable[Point], moment: float) -> None:
    for tag, step, value in points:
        writer.add_scalar(tag, value, step, walltime=moment)


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


def _image(tag: str, image: bytes) -> Summary:
    width, height = unpack(">II", image[16:24])  # the first chunk of a PNG begins with its size
    summary = Summary()
    summary.value.add(
        tag=tag, image=Summary.Image(height=height, width=width, colorspace=RGBA, encoded_image_string=image)
    )
    return summary


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
