"""The command line: what it prints, and how it ends."""

import subprocess
import sys
from pathlib import Path

import pytest

from dynops import cards, cli, zoo
from dynops.ablation.designs import Levels
from dynops.ablation.plan import Plan
from dynops.ablation.store import write_study
from dynops.nets import resnet, sections
from dynops.records import RunRecord


def dynops(*arguments: str) -> "subprocess.CompletedProcess[str]":
    code = "from dynops.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    plan = Plan(name="small", question="Which?", factors=(Levels("kernel", ("static", "pixel")),), seeds=(0, 1, 2))
    records = [
        RunRecord(levels=levels, seed=seed, status="complete", metrics={"accuracy": 0.5 + 0.1 * cell + 0.01 * seed})
        for seed in plan.seeds
        for cell, levels in enumerate(plan.cell_levels())
    ]
    write_study(tmp_path, plan, records)
    return tmp_path


def test_report_is_made_anew_from_the_records(study: Path) -> None:
    run = dynops("report", str(study))
    assert run.returncode == 0, run.stderr
    assert "Cells" in run.stdout
    assert f"tensorboard --logdir {study / 'tensorboard'}" in run.stdout
    assert "kernel: pixel - static" in (study / "report.md").read_text()


def test_an_error_has_its_message_alone_and_status_2(tmp_path: Path) -> None:
    run = dynops("report", str(tmp_path))
    assert run.returncode == 2
    assert run.stdout == ""
    assert " ".join(run.stderr.split()).startswith("Error: ")
    assert "has no records.jsonl: must be the folder of a study." in " ".join(run.stderr.split())
    assert "Traceback" not in run.stderr


def test_help_says_what_the_arguments_mean() -> None:
    run = dynops("report", "--help")
    assert run.returncode == 0
    assert "of the study or search" in run.stdout


def test_ctrl_c_ends_with_status_130() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        cli.command(interrupted, "A command.", args=[])
    assert ended.value.code == 130


def run_here(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["dynops", *arguments])
    cli.main()


def test_names_of_options_may_have_dashes() -> None:
    found = []

    def take(batch_seeds: bool = False, name: str = "") -> None:
        """Take what comes.

        Args:
            batch_seeds: one.
            name: another.
        """
        found.append((batch_seeds, name))

    cli.command(take, "A command.", args=["--batch-seeds=true", "--name=a-b=c"])
    cli.command(take, "A command.", args=["--batch-seeds", "true", "--name", "a-b"])
    assert found == [(True, "a-b=c"), (True, "a-b")]


def test_zoo_prints_the_family_as_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run_here(monkeypatch, "zoo", "--channels", "96", "--size", "14")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    described = zoo.involution().describe(96, (14, 14))
    assert ["involution", "{b,", "h,", "w}", "(g", "s),", "g=6", "s=16", "7x7", "-", "9.7", "k", "2.8", "M"] in lines
    assert (described.parameters, described.macs) == (9702, 2756544)
    assert ["attention"] in lines


def test_zoo_prints_markdown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run_here(monkeypatch, "zoo", "--size=14", "--format=markdown")
    assert capsys.readouterr().out == cards.markdown(cards.family(96, (14, 14))) + "\n"


def test_zoo_takes_a_variant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("from dynops import zoo\n\nmine = zoo.depthwise(5)\n")
    run_here(monkeypatch, "zoo", "--size=14", f"--variant={tmp_path}/mine.py:mine")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[lines.index(["variant"]) + 1] == ["mine", "{}", "g,", "g=96", "5x5", "-", "2.4", "k", "470.4", "k"]


def test_card_prints_and_draws(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run_here(monkeypatch, "card", "conv2d", "--channels=32", "--size=14", f"--folder={tmp_path}")
    shown = capsys.readouterr().out
    assert shown.startswith("conv2d\nThe convolution: dense static kernels.\n")
    assert shown.endswith(f"\nIts picture: {tmp_path / 'card-conv2d.png'}\n")
    assert f"{zoo.conv2d().describe(32, (14, 14)).macs:,}" in shown
    assert (tmp_path / "card-conv2d.png").stat().st_size > 10_000


def test_card_of_a_file_of_ones_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("from dynops import zoo\n\nmine = zoo.depthwise(5)\n")
    run_here(monkeypatch, "card", f"{tmp_path}/mine.py:mine", "--channels=8", "--size=9", f"--folder={tmp_path}")
    assert capsys.readouterr().out.startswith("mine\n\nPython\n    Operator(")
    assert (tmp_path / "card-mine.png").exists()


def test_card_of_a_name_that_there_is_not(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_here(monkeypatch, "card", "involutoin")
    assert ended.value.code == 2
    assert "Near: involution, involution_keras." in " ".join(capsys.readouterr().err.split())


def test_card_of_a_network_prints_and_draws(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ("--size=64", "--channels=1", "--outputs=10", f"--folder={tmp_path}")
    run_here(monkeypatch, "card", "resnet26", "--operator=involution", *options)
    shown = capsys.readouterr().out
    assert shown.startswith("resnet26-involution\n\nPython\n    ResNet(\n        depth=26,")
    assert "\nAt 1x64x64, 10 classes\nsection " in shown
    assert shown.endswith(f"\nIts picture: {tmp_path / 'card-resnet26-involution.png'}\n")
    assert (tmp_path / "card-resnet26-involution.png").stat().st_size > 10_000
    cost = sum(each.parameters for each in sections(resnet(26, zoo.involution()), (1, 64, 64), 10))
    assert f"{cost:,}" in shown


def test_card_of_a_network_is_the_published_one_at_its_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run_here(monkeypatch, "card", "rednet26", f"--folder={tmp_path}")
    shown = capsys.readouterr().out
    assert "\nAt 3x224x224, 1000 classes\n" in shown
    assert "9,233,166" in shown


def test_an_operator_of_ones_own_stands_in_a_network(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("from dynops import zoo\n\nmine = zoo.depthwise(5)\n")
    options = (f"--operator={tmp_path}/mine.py:mine", "--size=32", f"--folder={tmp_path}")
    run_here(monkeypatch, "card", "metaformer-s12", *options)
    assert capsys.readouterr().out.startswith("metaformer-s12-mine\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("resnet34",), "must be of the zoo, a network, or path/to/file.py:name. Near: resnet38, resnet50, "),
        (("xyzzy",), "Networks: resnet26, resnet38, resnet50, resnet101, resnet152, rednet26, "),
        (("resnet26", "--operator=involutoin"), "'involutoin': must be of the zoo, or path/to/file.py:name. Near: inv"),
        (("rednet26", "--operator=conv2d"), "a RedNet has involution. Use resnet26 for another operator."),
        (("conv2d", "--operator=conv2d"), "name has 'conv2d', operator has 'conv2d': must be a network, one of resnet"),
        (("resnet26", "--operator=window_attention"), "both must be multiples of the stride"),
    ],
)
def test_cards_that_there_are_not(
    words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_here(monkeypatch, "card", *words)
    assert ended.value.code == 2
    # the terminal breaks lines, at a slash as well
    assert "".join(message.split()) in "".join(capsys.readouterr().err.split())


def test_seeds_are_planned_from_a_study(tmp_path: Path) -> None:
    results = Path(__file__).resolve().parents[1] / "studies" / "results" / "which_part-digits"
    run = dynops("seeds", str(results), "--effect", "0.02")
    assert run.returncode == 0
    assert "Seeds that show 2.00 with 80 % power" in run.stdout
    run = dynops("seeds", str(tmp_path))
    assert run.returncode == 2
