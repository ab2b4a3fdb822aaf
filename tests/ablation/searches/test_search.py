"""A search: what it finds, what it repeats exactly, what it survives, and what it refuses."""

import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from dynops.ablation import Factor, Job, Objective, Range, Search, SearchPlan, read_search, read_study
from dynops.ablation.searches.trials import front_of, trials_of
from dynops.errors import SpecError, StudyError
from dynops.records import RunRecord


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name.split('.')[-1]}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


killable = _load("tests.ablation.searches.killable_search")  # as pytest calls it: a spec's class is defined once
make: Callable[..., Search] = killable.make
record_of: Callable[[Job], RunRecord] = killable.record_of
ACCURACY = (Objective("accuracy", "maximise"),)


def noting(jobs: list[Job]) -> Callable[[Job], RunRecord]:
    def run(job: Job) -> RunRecord:
        jobs.append(job)
        return record_of(job)

    return run


def failing(kernel: str) -> Callable[[Job], RunRecord]:
    def run(job: Job) -> RunRecord:
        if job.spec == replace(job.spec, kernel=kernel):
            raise ZeroDivisionError(f"planted in {kernel}")
        return record_of(job)

    return run


def points(records: list[RunRecord]) -> list[str]:
    return [record.cell for record in records]


def journal(folder: Path) -> list[FrozenTrial]:
    path = str((folder / "journal.log").resolve())
    storage = JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))
    return optuna.load_study(study_name="killable", storage=storage).trials


def planted_front() -> set[tuple[float, int]]:
    """Accuracy and parameters of the points that no other one dominates, by brute force."""
    toys = [
        killable.Toy(kernel=kernel, size=size, width=width)
        for kernel, size, width in product(killable.KERNELS, (3, 5, 7), (8, 12, 16, 24, 32, 48))
    ]
    every = [(killable.accuracy_of(toy), toy.width * toy.size**2) for toy in toys]
    return {(a, p) for a, p in every if not any(x >= a and y <= p and (x, y) != (a, p) for x, y in every)}


@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
def test_the_planted_front_is_found(tmp_path: Path, sampler: str) -> None:
    search = make(record_of, sampler=sampler, trials=40, startup=8)
    records = search.execute(tmp_path)
    assert len(set(points(records))) == len(records) == 40
    found = front_of(search.plan(), trials_of(search.plan(), records))
    assert {(trial.values[0], int(trial.values[1])) for trial in found} == planted_front()


def test_one_objective_has_a_best_trial(tmp_path: Path) -> None:
    search = make(record_of, objectives=ACCURACY, sampler="tpe", trials=30)
    (best,) = front_of(search.plan(), trials_of(search.plan(), search.execute(tmp_path)))
    assert best.levels == {"kernel": "pixel", "size": "3", "width": "48"}


@pytest.mark.parametrize("sampler", ["nsga2", "tpe", "random"])
def test_a_search_in_parts_is_the_search_at_once(tmp_path: Path, sampler: str) -> None:
    whole = make(record_of, sampler=sampler, trials=20).execute(tmp_path / "whole")
    for trials in (7, 15, 20):
        parts = make(record_of, sampler=sampler, trials=trials).execute(tmp_path / "parts")
    assert parts == whole
    other = make(record_of, sampler=sampler, trials=20, sampler_seed=1).execute(tmp_path / "other")
    assert points(other) != points(whole)


def test_a_search_that_is_killed_again_and_again_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    killed.mkdir()
    make(record_of, seeds=killable.SEEDS).execute(whole)
    command = [sys.executable, str(Path(__file__).with_name("killable_search.py")), str(killed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    for moment, _ in killable.MOMENTS:
        assert f"{moment}: -9\n" in done.stdout
    assert "never: 0\n" in done.stdout
    assert "trials were done before; going on." in done.stdout
    assert read_search(killed) == read_search(whole)

    ends = Counter(line for line in (killed / "executions").read_text().splitlines() if line.startswith("end"))
    assert sorted(ends.values())[-2:] == [1, 2], "only the run whose record was torn is run again"
    states = Counter(trial.state for trial in journal(killed))
    assert states[TrialState.COMPLETE] == killable.TRIALS
    assert set(states) <= {TrialState.COMPLETE, TrialState.FAIL}


def test_two_processes_do_not_work_on_one_folder(tmp_path: Path) -> None:
    def run(job: Job) -> RunRecord:
        with pytest.raises(StudyError, match="has a process that works on it: wait for it, or use another folder"):
            make(record_of).execute(tmp_path)
        return record_of(job)

    make(run, trials=1).execute(tmp_path)


def test_the_journal_shows_trials_to_optuna(tmp_path: Path) -> None:
    records = make(record_of).execute(tmp_path)
    completed = [trial for trial in journal(tmp_path) if trial.state == TrialState.COMPLETE]
    assert [(trial.params["kernel"], trial.values) for trial in completed] == [
        (record.levels["kernel"], [record.metrics["accuracy"], record.parameters]) for record in records
    ]


def test_objectives_are_means_over_seeds(tmp_path: Path) -> None:
    search = make(record_of, seeds=(0, 3), trials=4)
    records = search.execute(tmp_path)
    assert [record.seed for record in records] == [0, 3] * 4
    for trial in trials_of(search.plan(), records):
        one, other = (record.metrics["accuracy"] for record in trial.records)
        assert trial.values[0] == pytest.approx((one + other) / 2)
        assert other - one == pytest.approx(0.003)


def test_numbers_can_be_searched(tmp_path: Path) -> None:
    def run(job: Job) -> RunRecord:
        record = record_of(job)
        toy: Any = job.spec
        assert isinstance(toy.width, int)
        assert 1e-4 <= toy.rate <= 1e-1
        return record

    rate = Range("rate", lambda toy, value: replace(toy, rate=value), 1e-4, 1e-1, log=True)
    width = Range("width", lambda toy, value: replace(toy, width=value), 4, 64, whole=True)
    search = make(run, factors=(killable.levels("kernel", "static", "pixel"), width, rate), trials=12)
    records = search.execute(tmp_path)
    assert all(record.accepted for record in records)
    assert len({record.levels["rate"] for record in records}) > 4
    assert replace(search, trials=16).execute(tmp_path)[:12] == records
    assert read_search(tmp_path)[0].size == float("inf")


def test_the_search_ends_where_every_point_was_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = make(record_of, factors=(killable.levels("kernel", "static", "pixel"), killable.levels("size", 3, 5)))
    assert len(small.execute(tmp_path)) == 4
    assert "Every point was tried or refused: the search ends with 4 trials." in capsys.readouterr().out


def test_what_cannot_be_run_is_not_sampled(tmp_path: Path) -> None:
    def check(toy: Any) -> None:
        if toy.kernel == "pixel" and toy.size > 3:
            raise SpecError("planted")

    search = make(record_of, check=check, constraint="pixel kernels are small", trials=30)
    records = search.execute(tmp_path)
    assert len(records) == 30
    assert {record.levels["size"] for record in records if record.levels["kernel"] == "pixel"} == {"3"}
    assert all(record.accepted for record in records)


def test_a_failure_is_recorded_and_tried_again_by_the_next_start(tmp_path: Path) -> None:
    records = make(failing("pixel")).execute(tmp_path)
    failed = [record for record in records if not record.accepted]
    assert failed
    assert len(records) == killable.TRIALS
    assert all("ZeroDivisionError: planted" in record.reason for record in failed)
    jobs: list[Job] = []
    healed = make(noting(jobs)).execute(tmp_path)
    assert len(jobs) == len(failed)
    plan, _ = read_search(tmp_path)
    trials = trials_of(plan, healed)
    assert len(trials) == killable.TRIALS
    assert all(trial.status == "complete" for trial in trials)


def test_a_record_without_an_objective_is_a_failure(tmp_path: Path) -> None:
    records = make(record_of, objectives=(Objective("recall", "maximise"),), trials=2).execute(tmp_path)
    assert all("record has metrics ['accuracy', 'loss']: must hold 'recall'" in record.reason for record in records)


def test_what_is_no_record_is_a_failure(tmp_path: Path) -> None:
    records = make(lambda job: 0.5, trials=2).execute(tmp_path)
    assert all("record has type float: must be a RunRecord" in record.reason for record in records)


def test_a_diverged_run_is_a_result(tmp_path: Path) -> None:
    def run(job: Job) -> RunRecord:
        return replace(record_of(job), status="diverged", reason="loss was nan", metrics={"accuracy": 0.1})

    search = make(run, trials=3)
    trials = trials_of(search.plan(), search.execute(tmp_path))
    assert [trial.status for trial in trials] == ["diverged"] * 3
    assert all(trial.values[0] == 0.1 for trial in trials)


def epochs(job: Job) -> RunRecord:
    """Ten epochs of a run whose outcome shows from the start."""
    final = record_of(job).metrics["accuracy"]
    history = [{"epoch": epoch, "loss": 1.0, "accuracy": final * epoch / 10} for epoch in range(1, 11)]
    for entry in history:
        job.on_epoch(entry)
    return replace(record_of(job), history=tuple(history))


def test_pruning_ends_bad_runs_early(tmp_path: Path) -> None:
    search = make(epochs, objectives=ACCURACY, pruning=True, sampler="tpe", trials=25)
    records = search.execute(tmp_path / "whole")
    pruned = [record for record in records if record.status == "pruned"]
    kept = [record.metrics["accuracy"] for record in records if record.status == "complete"]
    assert 3 <= len(pruned) <= 20
    assert not any(record.accepted or record.metrics for record in pruned)
    assert all(len(record.history) == 2 for record in pruned), "the first epoch is not judged"
    assert all("after epoch 2 it was worse than the median" in record.reason for record in pruned)
    assert max(kept) == pytest.approx(max(5 * record.history[1]["accuracy"] for record in records))
    assert all(trial.status == "complete" for trial in front_of(search.plan(), trials_of(search.plan(), records)))
    for trials in (13, 25):
        parts = replace(search, trials=trials).execute(tmp_path / "parts")
    assert parts == records


def test_a_pruned_run_is_not_run_again(tmp_path: Path) -> None:
    search = make(epochs, objectives=ACCURACY, pruning=True, trials=20)
    assert any(record.status == "pruned" for record in search.execute(tmp_path))
    assert len(replace(search, run=failing("")).execute(tmp_path)) == 20


def test_an_epoch_that_is_not_finite_is_not_judged(tmp_path: Path) -> None:
    def run(job: Job) -> RunRecord:
        job.on_epoch({"epoch": 1, "accuracy": float("nan")})
        return record_of(job)

    search = make(run, objectives=ACCURACY, pruning=True, trials=8)
    assert all(record.status == "complete" for record in search.execute(tmp_path))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"name": "other"}, "name"),
        ({"base": killable.Toy(rate=0.5)}, "fingerprints"),
        ({"seeds": (0, 1)}, "seeds"),
        ({"sampler": "tpe", "startup": 5}, "sampler, startup"),
        ({"factors": make(record_of).factors[:1]}, "factors, fingerprints"),
    ],
)
def test_a_folder_holds_one_search_with_one_plan(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    make(record_of, trials=2).execute(tmp_path)
    before = (tmp_path / "records.jsonl").read_bytes()
    with pytest.raises(StudyError, match=f"they differ in {what}: a folder holds one search with one plan"):
        make(record_of, trials=2, **changes).execute(tmp_path)
    assert (tmp_path / "records.jsonl").read_bytes() == before


def test_trials_cannot_be_dropped(tmp_path: Path) -> None:
    make(record_of, trials=3).execute(tmp_path)
    with pytest.raises(StudyError, match="has 3 trials planned, asked for are 2: trials can be added to a search, not"):
        make(record_of, trials=2).execute(tmp_path)


def test_a_search_is_no_study(tmp_path: Path) -> None:
    make(record_of, trials=1).execute(tmp_path)
    with pytest.raises(StudyError, match="has a first line that is no plan"):
        read_study(tmp_path)
    (tmp_path / "records.jsonl").write_text(json.dumps({"plan": {"type": "Plan"}}) + "\n")
    with pytest.raises(StudyError, match="has a first line that is no plan of a search"):
        read_search(tmp_path)


def test_a_folder_without_a_search_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"has no records\.jsonl: must be the folder of a search"):
        read_search(tmp_path)


def test_runs_without_records_are_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(StudyError, match=r"has runs but no records\.jsonl: restore that file"):
        make(record_of).execute(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "grid"}, "sampler has 'grid': must be one of 'tpe', 'nsga2', 'random'"),
        ({"trials": 0}, "trials has 0: must be an integer of at least 1"),
        ({"startup": 1}, "startup has 1: must be an integer of at least 2"),
        ({"seeds": ()}, r"seeds has \(\): must be one or more, all different"),
        ({"seeds": (1, 1)}, r"seeds has \(1, 1\)"),
        ({"factors": ()}, r"factors has \(\): must be one or more, all different"),
        ({"objectives": ()}, r"objectives has \(\): must be one or more, all different"),
        ({"objectives": ACCURACY * 2}, r"objectives has \('accuracy', 'accuracy'\)"),
        ({"pruning": True}, "pruning has True, objectives has accuracy, parameters: must be one metric"),
        ({"pruning": True, "objectives": (Objective("macs", "minimise"),)}, "objectives has macs: must be one metric"),
        ({"pruning": True, "objectives": ACCURACY, "seeds": (0, 1)}, r"seeds has \(0, 1\): must be one seed"),
        ({"factors": (Factor("a", {"only": lambda base: base}),)}, r"factor a has levels \('only',\): must be two"),
    ],
)
def test_a_plan_says_what_is_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make(record_of, **changes).plan()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": 2, "high": 1}, "factor rate has low=2, high=1: low must be below high, finite"),
        ({"low": 0, "high": 1, "log": True}, "factor rate has low=0: must be positive on a logarithmic scale"),
        ({"low": 0.5, "high": 2, "whole": True}, r"factor rate has low=0\.5, high=2: must be integers"),
        ({"name": "a,b", "low": 0, "high": 1}, "factor has name or level 'a,b': must be a word"),
    ],
)
def test_a_range_says_what_is_wrong(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Range(**({"name": "rate", "change": lambda base, value: base} | settings)).plan()


def test_an_objective_says_what_is_wrong() -> None:
    with pytest.raises(SpecError, match="direction has 'up': must be one of 'maximise', 'minimise'"):
        Objective("accuracy", "up")
    with pytest.raises(SpecError, match="unit has 'percent': must be one of 'points', 'raw'"):
        Objective("accuracy", "maximise", unit="percent")


def test_a_check_is_said_in_words() -> None:
    with pytest.raises(StudyError, match=re.escape("must be given both, the one for the report, the other")):
        make(record_of, check=lambda point: None).plan()
    with pytest.raises(StudyError, match="constraint has 'small', check has None"):
        make(record_of, constraint="small").plan()


def test_a_plan_goes_to_json_and_back() -> None:
    rate = Range("rate", lambda toy, value: replace(toy, rate=value), 1e-4, 1e-1, log=True)
    plan = make(record_of, factors=(killable.levels("kernel", "static", "pixel"), rate)).plan()
    assert SearchPlan.from_json(plan.to_json()) == plan
