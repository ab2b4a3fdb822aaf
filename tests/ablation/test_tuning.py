"""Tuning before the comparison, budgets, and what is registered before the first run."""

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dynops import Dynamic, Operator, Window
from dynops.ablation import Difference, Exceeds, Factor, Hypothesis, Job, Study, Tuning, read_study, report
from dynops.errors import SpecError, StudyError
from dynops.records import RunRecord


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


make: Callable[..., Study] = _load("killable").make
BEST = {"static": 4, "pixel": 8}


def reductions(*numbers: int) -> Factor:
    """A stand-in for a learning rate: the size of the window's dilation."""

    def level(number: int) -> Callable[[Any], Operator]:
        return lambda operator: replace(operator, window=replace(operator.window, dilation=number))

    return Factor("dilation", {str(number): level(number) for number in numbers})


def held_out(operator: Operator) -> Operator:
    return replace(operator, bias=True)


def scored(seen: list[Job]) -> Callable[[Job], RunRecord]:
    """Score a cell by how far its dilation lies from the one that is planted for its kernel."""

    def run(job: Job) -> RunRecord:
        seen.append(job)
        operator: Any = job.spec
        best = BEST["pixel" if isinstance(operator.kernel, Dynamic) else "static"]
        return RunRecord(
            seed=job.seed, status="complete", metrics={"accuracy": 1 - abs(operator.window.dilations[0] - best) / 100}
        )

    return run


def tuned_study(seen: list[Job], **changes: Any) -> Study:
    return make(scored(seen), tuning=Tuning(factor=reductions(2, 4, 8), held_out=held_out, seeds=(7, 8)), **changes)


def test_each_cell_is_compared_at_its_own_best_setting(tmp_path: Path) -> None:
    seen: list[Job] = []
    records = tuned_study(seen).execute(tmp_path)
    tuning, comparison = seen[: 4 * 3 * 2], seen[4 * 3 * 2 :]
    assert all(job.spec.bias for job in tuning)  # type: ignore[attr-defined]
    assert {job.seed for job in tuning} == {7, 8}
    assert not any(job.spec.bias for job in comparison)  # type: ignore[attr-defined]
    assert [record.metrics["accuracy"] for record in records] == [1.0] * 8
    plan, _ = read_study(tmp_path)
    assert plan.tuned is not None
    assert plan.tuned.chosen == ("4", "4", "8", "8")
    assert plan.tuned.scores[0] == tuple(pytest.approx((score, score)) for score in (0.98, 1.0, 0.96))
    assert plan.cells[0] == comparison[0].spec.fingerprint()
    text = report(tmp_path).text
    assert "6 runs a cell: dilation among 2, 4, 8 gave 4 for kernel=static,window=small" in text
    assert "**at an end of the candidates** for kernel=pixel,window=small kernel=pixel,window=large" in text


def test_the_report_says_how_sure_each_choice_is(tmp_path: Path) -> None:
    """For a large window, one seed says 3 points and the other 0.2: a lead of 1.6 with an error of 1.4."""

    def run(job: Job) -> RunRecord:
        operator: Any = job.spec
        worth = {2: (0.918, 0.90), 4: (0.92, 0.93), 8: (0.5, 0.5)}[operator.window.dilations[0]]
        wide = operator.window.sizes[0] > 3
        accuracy = worth[job.seed % 2] if wide else 0.9 + 0.01 * (operator.window.dilations[0] == 8)
        return RunRecord(seed=job.seed, status="complete", metrics={"accuracy": accuracy})

    replace(tuned_study([]), run=run).execute(tmp_path)
    text = report(tmp_path).text
    table = text.split("### Tuning of dilation")[1]
    rows = [line for line in table.splitlines() if line.startswith("| kernel=static")][:2]
    assert [row.split(" | ")[1:] for row in rows] == [
        ["90.00", "90.00", "91.00", "8", "2", "+1.00 ± 0.00", "yes |"],
        ["90.90", "92.50", "50.00", "4", "2", "+1.60 ± 1.40", "no |"],
    ]
    assert "**no more than chance before the next best** in 2 of 4 cells" in text


def test_tuning_goes_on_where_it_was_and_is_not_repeated(tmp_path: Path) -> None:
    class Stopped(BaseException):
        pass

    seen: list[Job] = []
    run = scored(seen)

    def stopping(job: Job) -> RunRecord:
        if len(seen) == 10:
            raise Stopped
        return run(job)

    with pytest.raises(Stopped):
        replace(tuned_study(seen), run=stopping).execute(tmp_path)
    tuned_study(seen).execute(tmp_path)
    assert len(seen) == 4 * 3 * 2 + 8
    tuned_study(seen).execute(tmp_path)
    assert len(seen) == 4 * 3 * 2 + 8


def test_a_cell_that_cannot_be_tuned_stops_the_study(tmp_path: Path) -> None:
    def run(job: Job) -> RunRecord:
        raise ZeroDivisionError

    study = replace(tuned_study([]), run=run)
    with pytest.raises(StudyError, match=r"kernel=static,window=small has no result of 2, 4, 8: one is needed"):
        study.execute(tmp_path)


def test_tuning_has_a_setting_and_seeds_of_its_own() -> None:
    with pytest.raises(SpecError, match=r"tuning has factor 'window': must be none of the study's kernel, window"):
        make(
            scored([]), tuning=Tuning(factor=Factor("window", reductions(1, 2).levels), held_out=held_out, seeds=(7,))
        ).plan()
    with pytest.raises(SpecError, match=r"tuning has no seeds: must have one or more"):
        make(scored([]), tuning=Tuning(factor=reductions(1, 2), held_out=held_out, seeds=())).plan()
    with pytest.raises(SpecError, match=r"tuning has seeds \[0, 1\] of the comparison: must have seeds of its own"):
        make(scored([]), tuning=Tuning(factor=reductions(1, 2), held_out=held_out, seeds=(0, 1, 7))).plan()


def test_a_budget_brings_each_cell_to_the_base_in_its_regime(tmp_path: Path) -> None:
    calls = []

    def match(cell: Any, base: Any, budget: str) -> Any:
        calls.append((base.window, budget))
        return replace(cell, bias=True)

    study = make(scored([]), budget="macs", match=match, regimes=("window",))
    assert all(cell.bias for cell in study.cells())
    assert {str(window.size) for window, _ in calls} == {"3", "7"}
    assert {budget for _, budget in calls} == {"macs"}
    study.execute(tmp_path)
    assert "Budget rule `macs`: each cell has the width at which it takes as many" in report(tmp_path).text


@pytest.mark.parametrize("settings", [{"budget": "macs"}, {"match": lambda cell, base, budget: cell}])
def test_a_budget_comes_with_what_meets_it(settings: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"a budget other than 'as_is' needs a function that matches"):
        make(scored([]), **settings).plan()


CLAIM = Hypothesis("H1", "pixels help", (Exceeds((Difference("kernel", "pixel", "static"),)),))


def test_hypotheses_are_registered_before_the_first_run(tmp_path: Path) -> None:
    def run(job: Job) -> RunRecord:
        plan, _ = read_study(tmp_path)
        assert plan.registration is not None
        assert plan.registration.statement.hypotheses == (CLAIM,)
        return scored([])(job)

    make(run, hypotheses=(CLAIM,)).execute(tmp_path)
    plan, records = read_study(tmp_path)
    assert all(record.accepted for record in records)
    assert plan.registration is not None
    assert f"hash {plan.registration.hash}, unchanged since" in report(tmp_path).text
    assert plan.registration.hash in (tmp_path / "journal.log").read_text()


def test_the_report_says_what_was_changed_after_the_first_run(tmp_path: Path) -> None:
    study = make(scored([]), hypotheses=(CLAIM,), margin=0.01)
    study.execute(tmp_path)
    other = replace(CLAIM, parts=(Exceeds((Difference("kernel", "pixel", "static"),), margin=-1.0),))
    replace(study, hypotheses=(other, replace(CLAIM, name="H2")), margin=0.02).execute(tmp_path)
    text = report(tmp_path).text
    assert "**changed after that**: margin was 0.01, is 0.02; H1 was changed; H2 was added. Verdicts are" in text
    study.execute(tmp_path)
    assert "unchanged since" in report(tmp_path).text


def test_what_is_stated_may_change_until_there_is_something_to_see(tmp_path: Path) -> None:
    def stop(job: Job) -> RunRecord:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(stop, hypotheses=(CLAIM,)).execute(tmp_path)
    make(scored([]), margin=0.02).execute(tmp_path)
    assert "unchanged since" in report(tmp_path).text


def edit_first_line(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    first, rest = (folder / "records.jsonl").read_text().split("\n", 1)
    plain = json.loads(first)
    edit(plain["plan"]["registration"])
    (folder / "records.jsonl").write_text(json.dumps(plain) + "\n" + rest)


def test_an_edited_registration_is_found_out(tmp_path: Path) -> None:
    study = make(scored([]), hypotheses=(CLAIM,))
    study.execute(tmp_path)
    edit_first_line(tmp_path, lambda registration: registration["statement"].update(question="Another?"))
    with pytest.raises(StudyError, match=r"registration has hash .*, its statement .*: must be equal"):
        study.execute(tmp_path)
    edit_first_line(
        tmp_path,
        lambda registration: registration.update(
            hash=make(scored([]), hypotheses=(CLAIM,), question="Another?").plan().statement().fingerprint()
        ),
    )
    with pytest.raises(StudyError, match=r"in its records, .* in Optuna's storage: must be equal"):
        study.execute(tmp_path)


def test_a_window_is_what_the_stand_in_changes() -> None:
    operator = reductions(2).levels["2"](make(scored([])).base)
    assert isinstance(operator, Operator)
    assert operator.window == Window(7, dilation=2)


def test_a_width_that_was_found_by_timing_is_kept(tmp_path: Path) -> None:
    found = iter(range(1, 99))

    def match(cell: Any, base: Any, budget: str) -> Any:
        return replace(cell, kernel=Dynamic(context="pixel", hidden=next(found)), bias=budget == "latency")

    seen: list[Job] = []
    settings: dict[str, Any] = {"budget": "latency", "match": match}
    tuned_study(seen, **settings).execute(tmp_path)
    assert len({job.spec.kernel.hidden for job in seen}) == 4  # type: ignore[attr-defined]
    ran = len(seen)
    records = tuned_study(seen, **settings, seeds=range(3)).execute(tmp_path)
    assert len(seen) == ran + 4
    assert len(records) == 12
    by_cell = {job.folder.parent.name: job.spec.kernel.hidden for job in seen[ran:]}  # type: ignore[attr-defined]
    assert by_cell == {job.folder.parent.name: job.spec.kernel.hidden for job in seen[ran - 8 : ran]}  # type: ignore[attr-defined]
