"""TensorBoard files of a search, laid out as those of a study: a run for each point and seed, and a root run."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from tensorboard.plugins.hparams.summary_v2 import Discrete, HParam, Metric, hparams_config_pb
from torch.utils.tensorboard import SummaryWriter

from dynops.ablation.designs import Levels
from dynops.ablation.plan import Plan
from dynops.ablation.reporting.document import Document, section_text
from dynops.ablation.reporting.drawing import pixels
from dynops.ablation.reporting.tensorboard import NAMES, WIDTH, write_any_run
from dynops.ablation.searches.plan import COSTS, SearchPlan
from dynops.ablation.searches.trials import PointTrial
from dynops.records import RunRecord


def write_trial(folder: Path, plan: SearchPlan, record: RunRecord) -> Path:
    """Write one run's curves, final metrics, levels and status, as a study does; return the run's own folder."""
    factors = tuple(factor if isinstance(factor, Levels) else factor.ends() for factor in plan.factors)
    study = Plan(name=plan.name, question=plan.question, factors=factors, seeds=plan.seeds)
    return write_any_run(folder, study, record)


def write_search_run(
    folder: Path,
    plan: SearchPlan,
    trials: Sequence[PointTrial],
    document: Document,
    figures: Mapping[str, Figure],
) -> None:
    """Write the root run: the experiment config, the report's sections as text, and the figures.

    TensorBoard lists runs by their first moment; this one is dated before all runs, so that it heads the list.

    Args:
        folder: the search's log folder, which holds no other root run.
        plan: gives factors and objectives.
        trials: give the levels of factors that are numbers.
        document: the report, whose sections become texts.
        figures: figures by tag.
    """
    longest = max((record.seconds for trial in trials for record in trial.records), default=0.0)
    factors = [
        HParam(factor.name, Discrete(sorted({trial.levels[factor.name] for trial in trials}), dtype=str))
        for factor in plan.factors
    ]
    names = dict.fromkeys([*(objective.metric for objective in plan.objectives), "diverged", *COSTS])
    metrics = [Metric(f"final/{name}", display_name=NAMES.get(f"final/{name}", name)) for name in names]
    writer = SummaryWriter(str(folder))
    try:
        config = hparams_config_pb(hparams=factors, metrics=metrics)
        writer._get_file_writer().add_summary(config, walltime=time.time() - longest - 1)
        for number, section in enumerate(document.sections, start=1):
            question = f"**{plan.question}**\n\n" if number == 1 else ""
            text = question + section_text(section, width=WIDTH)
            writer.add_text(f"report/{number:02} {section.title.lower()}", text)
        for tag, figure in figures.items():
            writer.add_image(f"search/{tag}", pixels(figure), dataformats="HWC")
    finally:
        writer.close()
