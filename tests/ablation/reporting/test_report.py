"""The report: its numbers and sentences, and what a kill leaves of it."""

import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from urllib.parse import unquote

import numpy as np
import pytest
from rich.console import Console

from dynops.ablation.claims import Bounded, Difference, Exceeds, Hypothesis, Interaction
from dynops.ablation.designs import Levels
from dynops.ablation.effects import effects
from dynops.ablation.plan import Plan
from dynops.ablation.reporting.document import to_markdown
from dynops.ablation.reporting.report import report
from dynops.ablation.reporting.report_text import pages, report_document
from dynops.ablation.reporting.tables import Table, show_p
from dynops.ablation.store import write_study
from dynops.errors import StudyError
from dynops.records import RunRecord

PIXEL = Difference("kernel", "pixel", "constant")
GROUPED = Difference("channels", "grouped", "specific")
KERNEL = Levels("kernel", ("constant", "pixel"))
CHANNELS = Levels("channels", ("specific", "grouped"))
NOISE = (0.0, 0.004, -0.004, 0.002, -0.002)

KILLED = """
import os, signal, sys
from pathlib import Path
from dynops.ablation.reporting.report import report
sys.modules["dynops.ablation.reporting.report"].write_run = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
report(Path(sys.argv[1]))
"""


def plan_of(*factors, seeds=5, **rest):
    return Plan(
        name="which_part", question="Which part drives the gain?", factors=factors, seeds=tuple(range(seeds)), **rest
    )


def factorial(**rest):
    plan = {
        "family": (PIXEL, GROUPED, Interaction(PIXEL, GROUPED)),
        "hypotheses": (
            Hypothesis("H1", "The pixel gains more than a point.", (Exceeds((PIXEL,), margin=0.01),)),
            Hypothesis("H2", "Grouping gains more than five points.", (Exceeds((GROUPED,), margin=0.05),)),
            Hypothesis("H3", "Grouping matters half as much.", (Bounded(GROUPED, PIXEL, ratio=0.5),)),
        ),
        "margin": 0.01,
    }
    return plan_of(KERNEL, CHANNELS, **{**plan, **rest})


def run_of(plan, levels, seed, **rest):
    """A run whose pixel kernel gains 4 points, grouped channels lose 0.6, each with its own noise."""
    gain = 0.04 * (levels.get("kernel") == "pixel") - 0.006 * (levels.get("channels") == "grouped")
    place = plan.cell_levels().index(levels)
    share = 0.8 + gain + NOISE[(seed + 2 * place) % 5]
    run = {
        "status": "complete",
        "metrics": {"accuracy": share, "loss": 1 - share},
        "history": ({"epoch": 1, "train_loss": 0.5, "loss": 1 - share, "accuracy": share, "learning_rate": 0.1},),
        "parameters": 1000 + 500 * place,
        "macs": 64000,
        "seconds": 90.0,
        "step_milliseconds": 1.5,
        "device": "a CPU",
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "commit": "0123abc",
    }
    return RunRecord(levels=levels, seed=seed, **{**run, **rest})


def runs_of(plan, **rest):
    return [run_of(plan, levels, seed, **rest) for seed in plan.seeds for levels in plan.cell_levels()]


def failure_of(plan, place, seed, reason="Traceback\n  File x\nRuntimeError: out of memory"):
    return RunRecord(levels=plan.cell_levels()[place], seed=seed, status="failed", reason=reason)


def reported(folder, plan, records):
    write_study(folder, plan, records)
    return report(folder)


def text_of(plan, records):
    """The Markdown alone, without figures."""
    return to_markdown(report_document(plan, records, effects(records, plan), {}))


def row_of(text, start):
    """The cells of the first table row that starts so."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def printed(tables, width=160):
    console = Console(width=width)
    with console.capture() as captured:
        for table in tables:
            console.print(table)
    return captured.get()


def contents(folder):
    """The report's files, without those that a killed report left in its own folder."""
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {file: (folder / file).read_bytes() for file in files if not file.parts[0].startswith(".report-")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return reported(tmp_path_factory.mktemp("study"), factorial(), runs_of(factorial()))


def test_report_gives_question_verdicts_and_what_an_undecided_one_lacks(made):
    text = (made.folder / "report.md").read_text()
    assert text == made.text
    assert text.startswith("# which_part\n\nWhich part drives the gain?\n")
    assert "- **H1 is supported**: The pixel gains more than a point." in text
    assert "- **H2 is refuted**: " in text
    verdict = next(each for each in made.effects.verdicts if each.name == "H3")
    assert (verdict.verdict == "undecided") == ("**H3 is undecided**" in text)
    (part,) = made.effects.verdicts[0].parts
    low, high = (100 * end for end in part.interval)
    expected = ["H1", "supported", part.name, f"{100 * part.estimate:+.2f}", f"[{low:+.2f}, {high:+.2f}]", "5"]
    assert row_of(text, "H1")[:6] == expected


def test_report_gives_the_numbers_of_cells_and_effects():
    plan = factorial()
    runs = runs_of(plan)
    text = text_of(plan, runs)
    values = [100 * run.metrics["accuracy"] for run in runs if run.cell == "kernel=pixel,channels=grouped"]
    cell = row_of(text, "kernel=pixel, channels=grouped")
    assert cell[1] == f"{np.mean(values):.2f}"
    assert cell[3:] == ["5", "2,500", "64,000", "1.50", "0", "0"]
    effect = row_of(text, "kernel: pixel - constant")
    assert (effect[1], effect[4], effect[8]) == ("+4.00", "5", "differs")
    assert text.index("### Confirmatory effects") < text.index("## Exploratory effects, unadjusted")


def test_setup_states_seeds_device_versions_commit_and_time():
    text = text_of(factorial(), runs_of(factorial()))
    for line in (
        "- n = 5 complete seeds of 5 planned, 20 results of 20 planned runs",
        "- Outcome: accuracy, higher is better, in points (hundredths of accuracy); equivalence margin ± 1.00",
        "- Budget rule `as_is`: cells are compared as they are",
        "- Device: a CPU\n",
        "- Versions: python 3.11.7, torch 2.13.0\n",
        "- Commit: 0123abc\n",
        "- Wall time of all runs together: 30 min\n",
    ):
        assert line in text


def test_records_from_two_commits_are_told_apart():
    plan = factorial()
    runs = [*runs_of(plan)[:-1], run_of(plan, plan.cell_levels()[-1], 4, commit="fed")]
    assert "- Commit: 0123abc (19 of 20 records); fed (1 of 20 records)" in text_of(plan, runs)


def test_unequal_costs_are_stated_with_their_numbers():
    text = text_of(factorial(), runs_of(factorial()))
    assert (
        "**Cells are compared at unequal cost**: parameters range from 1,000 (kernel=constant,channels=specific) "
        "to 2,500 (kernel=pixel,channels=grouped), 2.50 times as many; MACs are equal in all cells (64,000)."
    ) in text


def test_equal_costs_are_stated_too():
    text = text_of(factorial(), runs_of(factorial(), parameters=7))
    assert "Cells are compared at equal cost: parameters are equal in all cells (7)" in text


def test_failures_divergences_and_gaps_are_listed_with_reasons():
    plan = factorial()
    runs = runs_of(plan)
    runs[0] = run_of(plan, runs[0].levels, 0, status="diverged", reason="loss was inf in epoch 2")
    text = text_of(plan, [*runs[:-3], failure_of(plan, 1, 4), failure_of(plan, 0, 0)])
    losses = text[text.index("## Failures") : text.index("## Files")]
    assert "- diverged: kernel=constant,channels=specific, seed 0: `loss was inf in epoch 2`\n" in losses
    assert "- failed: kernel=constant,channels=grouped, seed 4: `RuntimeError: out of memory`\n" in losses
    assert "- not run: kernel=pixel,channels=specific, seed 4\n" in losses
    assert "Failed attempts that a later attempt at the same run replaced: 1." in losses
    assert "- n = 4 complete seeds of 5 planned, 17 results of 20 planned runs" in text
    assert row_of(text, "kernel: pixel - constant")[4] == "4 of 5"


def test_every_embedded_figure_is_there(tmp_path):
    images = {"inputs": np.zeros((1, 1, 2, 2)).tolist(), "kernels": {"layer": [[[0.0, 1.0], [2.0, 3.0]]]}}
    made = reported(tmp_path, factorial(), runs_of(factorial(), images=images))
    embedded = [unquote(link) for link in re.findall(r"!\[.*?\]\((.*?)\)", made.text)]
    assert {tmp_path / link for link in embedded} == set(made.figures.values()) == set((tmp_path / "figures").iterdir())
    assert len(embedded) == 10
    assert all((tmp_path / link).read_bytes().startswith(b"\x89PNG") for link in embedded)


def test_report_twice_is_equal_and_leaves_no_other_files(tmp_path):
    reported(tmp_path, factorial(), runs_of(factorial()))
    first = {name: (tmp_path / name).read_bytes() for name in ("report.md", "report.html", "effects.json")}
    report(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in first} == first
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"records.jsonl", "report.md", "report.html", "effects.json", "figures", "tensorboard"}


def test_report_drops_figures_that_its_records_no_longer_give(tmp_path):
    reported(tmp_path, factorial(), runs_of(factorial()))
    reported(tmp_path, factorial(), runs_of(factorial(), history=()))
    assert not (tmp_path / "figures" / "outcome-learning-curves.png").exists()


def test_effects_are_written_as_plain_numbers(made):
    assert json.loads((made.folder / "effects.json").read_text()) == json.loads(json.dumps(made.effects.to_plain()))


def test_report_killed_half_way_leaves_the_old_one(tmp_path):
    plan = factorial()
    reported(tmp_path, plan, runs_of(plan)[:-1])
    write_study(tmp_path, plan, runs_of(plan))
    before = contents(tmp_path)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list(tmp_path.glob(".report-*/tensorboard"))
    assert contents(tmp_path) == before
    report(tmp_path)
    assert not list(tmp_path.glob(".report-*"))
    assert "20 results of 20 planned runs" in (tmp_path / "report.md").read_text()


def test_report_that_raises_leaves_the_old_one_and_no_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["dynops.ablation.reporting.report"], "all_figures", lambda *_: {})
    reported(tmp_path, factorial(), runs_of(factorial()))
    before = contents(tmp_path)

    def refuse(*_):
        raise OSError("disk is full")

    monkeypatch.setattr(sys.modules["dynops.ablation.reporting.report"], "write_run", refuse)
    with pytest.raises(OSError, match="disk is full"):
        report(tmp_path)
    assert contents(tmp_path) == before


def test_terminal_shows_cells_confirmatory_effects_and_verdicts(made):
    text = printed(made.tables())
    assert "kernel=pixel, channels=grouped" in text
    assert "+4.00" in text
    assert "Exploratory" not in text
    assert max(map(len, printed(made.tables(), width=80).splitlines())) <= 80
    assert [headline for headline, _ in made.verdicts()] == ["H1 is supported", "H2 is refuted", "H3 is supported"]


def test_two_seeds_give_estimates_without_intervals():
    plan = factorial(seeds=2)
    text = text_of(plan, runs_of(plan))
    assert "- **H1 is undecided**: The pixel gains more than a point." in text
    assert "It lacks evidence: needs at least 3 complete seeds, has 2." in text
    effect = row_of(text, "kernel: pixel - constant")
    assert effect[2:] == ["-", "-", "2", "-", "-", "-", "undecided", "at least 3"]


def test_single_result_is_reported(tmp_path):
    plan = factorial()
    made = reported(tmp_path, plan, runs_of(plan)[:1])
    assert "- n = 0 complete seeds of 5 planned, 1 results of 20 planned runs" in made.text
    assert "- not run: kernel=pixel,channels=grouped, seeds 0, 1, 2, 3, 4" in made.text
    assert row_of(made.text, "kernel=pixel, channels=grouped")[1:] == ["-", "-", "0", "-", "-", "-", "0", "0"]
    assert "effects/all" not in made.figures


def test_study_without_hypotheses_family_and_history_is_reported(tmp_path):
    plan = plan_of(KERNEL, CHANNELS)
    text = reported(tmp_path, plan, runs_of(plan, history=())).text
    assert "## Verdicts\n\nThe plan states no hypotheses." in text
    assert "### Confirmatory effects\n\nNone." in text
    assert "no equivalence margin" in text


def test_regression_on_one_factor_is_reported_in_its_own_unit(tmp_path):
    plan = plan_of(KERNEL, family=(PIXEL,), outcome="loss", unit="raw", higher_is_better=False)
    text = reported(tmp_path, plan, runs_of(plan)).text
    assert "Outcome: loss, lower is better, in units of loss" in text
    assert row_of(text, "kernel: pixel - constant")[1] == "-0.04"
    assert "![kernel](figures/factors-kernel.png)" in text


def test_study_without_a_result_says_why(tmp_path):
    plan = factorial()
    write_study(tmp_path, plan, [failure_of(plan, 0, 0)])
    message = r"has 0 results and 1 failures: a report needs one result.*RuntimeError: out of memory"
    with pytest.raises(StudyError, match=message):
        report(tmp_path)
    write_study(tmp_path, plan, [])
    with pytest.raises(StudyError, match=r"has 0 results and 0 failures: .* Run the study first\.$"):
        report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["records.jsonl"]


def test_files_of_figures_have_plain_names_of_their_own(tmp_path):
    plan = plan_of(Levels("kernel", ("a+b", "a-b")), CHANNELS, seeds=1)
    images = {"inputs": np.zeros((1, 1, 2, 2)).tolist(), "kernels": {"layer": [[[0.0, 1.0], [2.0, 3.0]]]}}
    made = reported(tmp_path, plan, runs_of(plan, history=(), images=images))
    names = {tag: path.name for tag, path in made.figures.items() if "specific" in tag}
    assert names == {
        "kernels/kernel=a+b,channels=specific": "kernels-kernel=a-b,channels=specific.png",
        "kernels/kernel=a-b,channels=specific": "kernels-kernel=a-b,channels=specific1.png",
    }


def test_markdown_cells_may_be_broken():
    table = Table(title="t", columns=("effect size", "b"), sides="lr", rows=(("kernel: pixel - constant", "1"),))
    assert table.to_markdown(width=14) == ("| effect<br>size | b |\n| :-- | --: |\n| kernel: pixel<br>- constant | 1 |")


def test_markdown_cells_may_hold_bars():
    table = Table(title="t", columns=("a", "b"), sides="lr", rows=(("|x|\ny", "1"),))
    assert table.to_markdown() == "| a | b |\n| :-- | --: |\n| \\|x\\| y | 1 |"


def test_small_p_values_are_bounds():
    assert [show_p(p) for p in (None, 0.00001, 0.0514)] == ["-", "<0.001", "0.051"]


def test_the_page_of_one_seed_is_that_of_the_first():
    plan = plan_of(KERNEL)
    assert pages(plan)["curves of one seed"].endswith("seed%3D0%24")
    assert pages(replace(plan, seeds=(200, 201)))["curves of one seed"].endswith("seed%3D200%24")
