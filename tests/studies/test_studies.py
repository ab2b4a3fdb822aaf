"""Every study file: its cells build, its hypotheses fit, and it runs small to a report."""

import importlib
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from dynops import Dynamic, Operator
from dynops.ablation import Study, effects, read_study
from dynops.data import Cifar10, Digits
from dynops.nets import ResidualNetwork
from dynops.records import RunRecord
from dynops.training import Recipe
from studies import position, setting
from studies.setting import Conditions, Setting, learning_rate, network

NAMES = (
    "which_part",
    "sharing_and_data",
    "scale",
    "attention_or_involution",
    "static_plus_dynamic",
    "normalisation",
    "mixture",
    "kernel_size",
    "group_channels",
    "function_form",
    "controls",
    "networks_of_the_field",
)
SETTINGS = {
    "digits": Setting(data=Digits(fraction=0.2), recipe=Recipe(), seeds=range(3), run=pytest.fail),
    "cifar10": Setting(data=Cifar10(), recipe=Recipe(), seeds=range(3), run=pytest.fail),
}


def made(name: str, data: str = "digits") -> Study:
    return importlib.import_module(f"studies.{name}").study(SETTINGS[data])


@pytest.mark.parametrize("data", SETTINGS)
@pytest.mark.parametrize("name", NAMES)
def test_all_cells_build_and_differ(name: str, data: str) -> None:
    study = made(name, data)
    cells = study.cells()
    assert len({cell.fingerprint() for cell in cells}) == len(cells)
    shape = (1, 8, 8) if data == "digits" else (3, 32, 32)
    for cell in cells:
        with torch.device("meta"):
            cell.network.build(shape, 10)


@pytest.mark.parametrize("name", NAMES)
def test_a_worker_makes_the_same_study_anew(name: str) -> None:
    """Studies are of lambdas, which can't be sent to another process; what makes them can."""
    conditions = Conditions(root=None, accelerator="cpu", averaged=())
    setting = replace(SETTINGS["digits"], run=conditions.run, match=conditions.match, tuning=learning_rate())
    sent = pickle.loads(pickle.dumps(partial(importlib.import_module(f"studies.{name}").study, setting)))
    assert sent().plan() == replace(made(name), tuning=learning_rate()).plan()


@pytest.mark.parametrize("name", NAMES)
def test_a_study_states_hypotheses_with_a_source_before_it_runs(name: str) -> None:
    study = made(name)
    assert study.name == name
    assert study.hypotheses
    assert study.family
    text = importlib.import_module(f"studies.{name}").__doc__ or ""
    assert text.splitlines()[0].endswith("?")
    assert f"python -m studies.{name}" in text


@pytest.mark.parametrize("name", NAMES)
def test_hypotheses_are_undecided_with_two_seeds_and_decidable_with_more(name: str) -> None:
    plan = replace(made(name).plan(), seeds=tuple(range(8)))
    records = [
        RunRecord(
            levels=levels, seed=seed, status="complete", metrics={"accuracy": 0.5 + 0.01 * number**2 + 1e-5 * seed}
        )
        for seed in plan.seeds
        for number, levels in enumerate(plan.cell_levels())
    ]
    few = effects([each for each in records if each.seed < 2], plan)
    assert {verdict.verdict for verdict in few.verdicts} == {"undecided"}
    assert "undecided" not in {verdict.verdict for verdict in effects(records, plan).verdicts}


@pytest.mark.parametrize("name", NAMES)
def test_a_study_runs_small_to_its_report(name: str, tmp_path: Path) -> None:
    fraction = 0.2 if made(name).regimes else 0.05
    importlib.import_module(f"studies.{name}").main(seeds=1, epochs=1, fraction=fraction, folder=tmp_path, tune=False)
    plan, records = read_study(tmp_path)
    assert len(records) == len(plan.cell_names())
    assert all(record.accepted for record in records)
    assert "undecided" in (tmp_path / "report.md").read_text()


def test_each_cell_is_tuned_on_held_out_training_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setting, "TUNING_SEEDS", (1000, 1001))
    importlib.import_module("studies.group_channels").main(seeds=1, epochs=1, fraction=0.1, folder=tmp_path)
    plan, records = read_study(tmp_path)
    assert plan.tuned is not None
    assert set(plan.tuned.chosen) <= {"0.003", "0.01", "0.03", "0.1"}
    rates = [record.spec["recipe"].get("learning_rate", 3e-3) for record in records]
    assert [f"{rate:g}" for rate in rates] == list(plan.tuned.chosen)
    _, tuning = read_study(tmp_path / "tuning")
    assert len(tuning) == 4 * 4 * 2
    assert {record.spec["data"]["evaluate"] for record in tuning} == {"validation"}
    assert all("evaluate" not in record.spec["data"] for record in records)
    assert not {record.seed for record in tuning} & {record.seed for record in records}


def test_equal_parameters_are_reached_by_width(tmp_path: Path) -> None:
    importlib.import_module("studies.mixture").main(
        seeds=1, epochs=1, fraction=0.1, folder=tmp_path, tune=False, budget="parameters"
    )
    plan, records = read_study(tmp_path)
    assert plan.budget == "parameters"
    base = records[0].parameters
    assert all(abs(record.parameters / base - 1) <= 0.01 for record in records)
    assert len({record.spec["network"].get("width") for record in records}) > 1


def test_shares_of_the_data_take_equally_many_steps() -> None:
    study = made("sharing_and_data")
    cells: list[Any] = [study.cell(levels) for levels in study.plan().cell_levels()]
    images = [cell.data.fraction * cell.recipe.epochs for cell in cells]
    assert images == pytest.approx([0.2 * Recipe().epochs] * len(images))
    assert {cell.recipe.epochs // cell.recipe.evaluate_every for cell in cells} == {4}


def test_a_rate_is_tuned_by_nothing_but_the_recipe_and_the_split() -> None:
    base: Any = made("which_part").base
    tuning = learning_rate((0.1, 0.2))
    changed: Any = tuning.levels().levels["0.2"](base)
    assert replace(changed, recipe=base.recipe, data=base.data) == base
    assert changed.recipe == replace(base.recipe, learning_rate=0.2, evaluate_every=base.recipe.epochs)
    assert changed.data == replace(base.data, evaluate="validation")


def test_the_network_has_the_operator_in_each_block() -> None:
    operator = Operator(
        kernel=Dynamic(context="pixel"),
        channels=made("which_part").base.network.operators[0].channels,  # type: ignore[attr-defined]
        window=made("which_part").base.network.operators[0].window,  # type: ignore[attr-defined]
    )
    for small in (True, False):
        built = network(operator, small)
        assert isinstance(built, ResidualNetwork)
        assert built.operators == (operator,)


@pytest.fixture(scope="module")
def positions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("position")
    position.main(seeds=3, steps=160, folder=folder)
    return folder


@pytest.mark.xdist_group("position")
def test_a_study_with_a_known_answer_returns_it(positions: Path) -> None:
    plan, records = read_study(positions)
    verdicts = {each.name: each.verdict for each in effects(records, plan).verdicts}
    assert verdicts == {"H5": "supported", "H5-position": "supported", "H5-coordinates": "supported"}


@pytest.mark.xdist_group("position")
def test_a_study_with_a_known_answer_is_undecided_with_too_few_seeds(positions: Path) -> None:
    plan, records = read_study(positions)
    few = [record for record in records if record.seed < 2]
    assert {each.verdict for each in effects(few, plan).verdicts} == {"undecided"}


@pytest.mark.xdist_group("position")
def test_wrong_claims_about_a_known_answer_are_refuted(positions: Path) -> None:
    plan, records = read_study(positions)
    negated: Callable[[Any], Any] = lambda part: replace(  # noqa: E731
        part, contrasts=tuple(replace(each, high=each.low, low=each.high) for each in part.contrasts)
    )
    wrong = tuple(replace(each, parts=tuple(map(negated, each.parts))) for each in plan.hypotheses[1:])
    found = effects(records, replace(plan, hypotheses=wrong)).verdicts
    assert {each.verdict for each in found} == {"refuted"}
