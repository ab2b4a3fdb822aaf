"""TensorBoard files: read back from disk, and shown by a server."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from dynops.ablation.claims import Difference, Exceeds, Hypothesis, Interaction
from dynops.ablation.designs import Levels, OneFactor
from dynops.ablation.effects import effects
from dynops.ablation.plan import Plan
from dynops.ablation.reporting.cost_figure import costs
from dynops.ablation.reporting.drawing import png
from dynops.ablation.reporting.margins import evidence, mean_curves
from dynops.ablation.reporting.tensorboard import write_run, write_study
from dynops.ablation.verdicts import t_interval
from dynops.records import RunRecord

PIXEL = Difference("kernel", "pixel", "constant")
GROUPED = Difference("channels", "grouped", "specific")
STATUSES = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
START = 30.0


def outcome_of(cell, seed):
    return 0.5 + 0.05 * cell + 0.001 * (cell + 1) * seed


@pytest.fixture
def plan():
    return Plan(
        name="study",
        question="Which part drives the gain?",
        factors=(Levels("kernel", ("constant", "pixel", "window")), Levels("channels", ("specific", "grouped"))),
        seeds=tuple(range(4)),
        family=(PIXEL, Interaction(PIXEL, GROUPED)),
        hypotheses=(Hypothesis("H1", "The pixel gains.", (Exceeds((PIXEL,), margin=0.01),)),),
    )


@pytest.fixture
def records(plan):
    return [
        RunRecord(
            levels=levels,
            seed=seed,
            status="complete",
            metrics={"accuracy": outcome_of(cell, seed), "loss": 0.5},
            history=tuple(
                {"epoch": epoch, "train_loss": 2.0 / epoch, "loss": 1.0, "accuracy": 0.5, "learning_rate": 0.1}
                for epoch in (1, 2)
            ),
            parameters=100 * (cell + 1),
            macs=1000,
            seconds=60.0,
        )
        for seed in plan.seeds
        for cell, levels in enumerate(plan.cell_levels())
    ]


@pytest.fixture
def study(tmp_path, plan, records):
    """A whole log folder; one point failed in the end, and one run diverged."""
    records[0] = RunRecord(levels=records[0].levels, seed=0, status="failed", reason="RuntimeError: lost")
    records[1] = RunRecord(
        levels=records[1].levels,
        seed=0,
        status="diverged",
        reason="loss was inf",
        metrics={"accuracy": 0.1, "loss": 9.0},
    )
    found = effects(records, plan)
    write_study(tmp_path, plan, records, found, {"outcome/cost": png(costs(plan, found))})
    for record in records:
        write_run(tmp_path, plan, record)
    return tmp_path


def read(folder):
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def hparams_of(accumulator, tag):
    content = accumulator.SummaryMetadata(tag).plugin_data
    assert content.plugin_name == "hparams"
    return HParamsPluginData.FromString(content.content)


def test_curves_and_final_metrics_are_read_back(tmp_path, plan, records):
    run = read(write_run(tmp_path, plan, records[1]))
    scalars = {tag: [(each.step, each.value) for each in run.Scalars(tag)] for tag in run.Tags()["scalars"]}
    assert scalars["train/loss"] == [(1, 2.0), (2, 1.0)]
    assert scalars["evaluation/loss"] == [(1, 1.0), (2, 1.0)]
    assert scalars["evaluation/accuracy"] == [(1, 0.5), (2, 0.5)]
    assert scalars["learning_rate"] == [(1, pytest.approx(0.1)), (2, pytest.approx(0.1))]
    assert scalars["final/accuracy"] == [(2, pytest.approx(outcome_of(1, 0)))]
    assert scalars["final/parameters"] == [(2, 200.0)]


def test_moments_of_a_run_span_its_wall_time(tmp_path, plan, records):
    first, last = read(write_run(tmp_path, plan, records[0])).Scalars("train/loss")
    assert last.wall_time - first.wall_time == pytest.approx(30.0, abs=0.01)


def test_session_holds_levels_only_and_is_grouped_by_cell(tmp_path, plan, records):
    folders = [write_run(tmp_path, plan, records[place]) for place in (0, 6)]
    assert [folder.relative_to(tmp_path).as_posix() for folder in folders] == [
        "kernel=constant,channels=specific/seed=0",
        "kernel=constant,channels=specific/seed=1",
    ]
    for folder in folders:
        start = hparams_of(read(folder), metadata.SESSION_START_INFO_TAG).session_start_info
        assert start.group_name == "kernel=constant,channels=specific"
        levels = {name: value.string_value for name, value in start.hparams.items()}
        assert levels == {"kernel": "constant", "channels": "specific"}


@pytest.mark.parametrize(("status", "code"), [("complete", 1), ("diverged", 1), ("failed", 2)])
def test_session_ends_with_its_status(tmp_path, plan, records, status, code):
    metrics = {} if status == "failed" else {"accuracy": 0.1}
    record = RunRecord(levels=records[0].levels, seed=0, status=status, reason="why", metrics=metrics)
    run = read(write_run(tmp_path, plan, record))
    assert hparams_of(run, metadata.SESSION_END_INFO_TAG).session_end_info.status == code
    assert ("final/accuracy" in run.Tags()["scalars"]) == (status != "failed")
    assert any(tag.startswith("run/") for tag in run.Tags()["tensors"]) == (status != "complete")


def test_run_does_not_depend_on_the_order_of_its_levels(tmp_path, plan, records):
    turned = RunRecord(levels=dict(reversed(records[0].levels.items())), seed=0, status="complete")
    assert write_run(tmp_path, plan, turned) == write_run(tmp_path, plan, records[0])


def test_run_written_twice_is_there_once(tmp_path, plan, records):
    folder = write_run(tmp_path, plan, records[0])
    write_run(tmp_path, plan, records[0])
    assert len(list(folder.iterdir())) == 1
    assert len(read(folder).Scalars("train/loss")) == 2


def test_root_run_holds_the_one_experiment_config(study, plan):
    config = hparams_of(read(study / "."), metadata.EXPERIMENT_TAG).experiment
    domains = {info.name: list(info.domain_discrete) for info in config.hparam_infos}
    assert {name: sorted(levels) for name, levels in domains.items()} == {
        factor.name: sorted(factor.levels) for factor in plan.factors
    }
    assert [info.name.tag for info in config.metric_infos][:2] == ["final/accuracy", "final/diverged"]
    assert "final/loss" in {info.name.tag for info in config.metric_infos}
    for run in study.glob("*/seed=*"):
        assert metadata.EXPERIMENT_TAG not in read(run).Tags()["tensors"]


def test_root_run_holds_tables_figures_and_layout(study):
    root = read(study)
    assert root.Tags()["images"] == ["outcome/cost"]
    tensors = root.Tags()["tensors"]
    sections = [tag.split("/")[1] for tag in tensors if tag.startswith("report/")]
    assert sections[:3] == ["01 verdicts", "02 effects", "03 cells"]
    assert root.SummaryMetadata("report/01 verdicts/text_summary").plugin_data.plugin_name == "text"
    text = root.Tensors("report/01 verdicts/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "**H1 is " in text
    assert "| H1 |" in text
    assert "<br>" in root.Tensors("report/02 effects/text_summary")[0].tensor_proto.string_val[0].decode()
    assert root.SummaryMetadata("custom_scalars__config__").plugin_data.plugin_name == "custom_scalars"


def test_evidence_grows_with_the_seeds_of_an_effect(study, plan, records):
    found = effects(records, plan)
    effect = next(each for each in found.effects if each.name == "kernel: pixel - constant")
    root = read(study)
    estimates, lows = (root.Scalars(f"with more seeds/{effect.name}/{part}") for part in ("estimate", "low"))
    assert [each.step for each in estimates] == [3]
    assert estimates[-1].value == pytest.approx(100 * effect.estimate, rel=1e-5)
    assert lows[-1].value == pytest.approx(100 * effect.interval[0], rel=1e-4)


def test_evidence_takes_seeds_in_the_order_of_the_plan(plan, records):
    turned = Plan.from_plain({**plan.to_plain(), "seeds": [3, 2, 1, 0]})
    effect = effects(records, turned).effects[0]
    mean, low, high = evidence(effect, turned, 0.05)[3]
    values = [100 * effect.by_seed[seed] for seed in (3, 2, 1)]
    assert mean == pytest.approx(sum(values) / 3)
    assert (low, high) == pytest.approx(tuple(map(float, t_interval(np.array(values), 0.05))))


def test_margin_charts_have_no_round_brackets_in_their_tags(study):
    tags = [tag for tag in read(study).Tags()["scalars"] if "x channels" in tag]
    assert tags
    assert not any("(" in tag or ")" in tag for tag in tags)


def test_mean_curve_of_a_level_averages_the_other_cells_in_each_seed(plan, records):
    kernel, channels, cell = mean_curves(plan, with_accuracy(records), 0.05)
    assert (kernel.category, kernel.title) == ("learning curves by kernel", "evaluation/accuracy by kernel")
    assert list(kernel.curves) == ["mean/kernel=constant", "mean/kernel=pixel", "mean/kernel=window"]
    values = [np.mean([outcome_of(place, seed) for place in (2, 3)]) for seed in plan.seeds]
    low, high = t_interval(np.array(values), 0.05)
    assert kernel.curves["mean/kernel=pixel"] == {
        epoch: pytest.approx((np.mean(values), float(low), float(high))) for epoch in (1, 2)
    }
    assert len(channels.curves) == 2
    assert len(cell.curves) == 6
    assert all(run.startswith("mean/cell/kernel=") for run in cell.curves)


def with_accuracy(records):
    return [
        replace(each, history=tuple({"epoch": epoch, "accuracy": each.metrics["accuracy"]} for epoch in (1, 2)))
        for each in records
    ]


def test_mean_curve_leaves_out_a_seed_that_lacks_a_cell_and_is_not_drawn_below_three(plan, records):
    fewer = with_accuracy(records)[1:]
    kernel, _, cell = mean_curves(plan, fewer, 0.05)
    values = [np.mean([outcome_of(place, seed) for place in (0, 1)]) for seed in (1, 2, 3)]
    assert kernel.curves["mean/kernel=constant"][1][0] == pytest.approx(np.mean(values))
    few = Plan.from_plain({**plan.to_plain(), "seeds": [0, 1]})
    assert not list(mean_curves(few, fewer, 0.05))
    assert len(cell.curves) == 6


def test_factor_that_a_design_does_not_balance_has_no_mean_curve(plan, records):
    alone = replace(plan, design=OneFactor(ways=("in",)), family=(), hypotheses=())
    (cell,) = mean_curves(alone, with_accuracy(records), 0.05)
    assert cell.category == "learning curves by cell"
    assert len(cell.curves) == 4


def test_mean_curves_are_runs_of_their_own(study):
    run = read(study / "mean" / "kernel=pixel")
    tags = [f"with margins/kernel/evaluation/accuracy/{end}" for end in ("estimate", "low", "high")]
    assert set(tags) <= set(run.Tags()["scalars"])
    assert [each.step for each in run.Scalars(tags[0])] == [1, 2]


def test_image_has_the_size_of_its_figure(study):
    (image,) = read(study).Images("outcome/cost")
    assert (image.width, image.height) == (1260, 614)
    assert image.encoded_image_string.startswith(b"\x89PNG")


def test_tensorflow_is_not_needed():
    assert "tensorflow" not in sys.modules


@pytest.fixture
def server(study):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(study), "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--reload_interval", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    yield f"http://127.0.0.1:{port}/data/"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ask(address, question=None):
    body = None if question is None else json.dumps(question).encode()
    request = urllib.request.Request(address, data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def wait_for(read_state, whole):
    deadline = time.monotonic() + START
    state = None
    while time.monotonic() < deadline:
        try:
            state = read_state()
            if whole(state):
                return state
        except (urllib.error.URLError, ConnectionError):
            state = "no answer"
        time.sleep(0.3)
    raise AssertionError(f"TensorBoard has {str(state)[:300]} after {START} s")


def test_hparams_page_has_a_row_for_each_cell_averaged_over_its_seeds(server, plan, records):
    question = {
        "experimentName": "",
        "allowedStatuses": STATUSES,
        "colParams": [
            {"hparam": "kernel"},
            {"hparam": "channels"},
            {"metric": {"group": "", "tag": "final/accuracy"}},
        ],
        "aggregationType": "AGGREGATION_AVG",
        "startIndex": 0,
        "sliceSize": 100,
    }
    answer = wait_for(
        lambda: ask(server + "plugin/hparams/session_groups", question)["sessionGroups"],
        lambda groups: sum(len(group["sessions"]) for group in groups) == 24 and all(map(accuracy_of, groups)),
    )
    rows = {group["name"]: (group["hparams"], accuracy_of(group)) for group in answer}
    assert rows == {
        cell.name: (dict(cell.levels), pytest.approx(cell.mean, rel=1e-5)) for cell in effects(records, plan).cells
    }
    statuses = sorted(session["status"] for group in answer for session in group["sessions"])
    assert statuses == ["STATUS_FAILURE"] + ["STATUS_SUCCESS"] * 23
    assert ask(server + "runs")[0] == "."
    assert "outcome/cost" in ask(server + "plugin/images/tags")["."]
    assert "report/01 verdicts/text_summary" in ask(server + "plugin/text/tags")["."]
    titles = [group["title"] for group in ask(server + "plugin/custom_scalars/layout")["category"]]
    assert titles == [
        "learning curves by kernel",
        "learning curves by channels",
        "learning curves by cell",
        "hypotheses with more seeds",
        "confirmatory effects with more seeds",
        "exploratory effects with more seeds",
    ]
    for chart in charts(ask(server + "plugin/custom_scalars/layout")):
        assert runs_with(ask(server + "plugin/scalars/tags"), chart), chart["title"]


def charts(layout):
    return [chart for category in layout["category"] for chart in category["chart"]]


def runs_with(tags, chart):
    """The runs that hold all three tags of a margin chart."""
    (series,) = chart["margin"]["series"]
    return [run for run, known in tags.items() if set(series.values()) <= set(known)]


def accuracy_of(group):
    found = {value["name"]["tag"]: value["value"] for value in group["metricValues"]}
    return found.get("final/accuracy")
