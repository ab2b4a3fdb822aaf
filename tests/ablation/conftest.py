"""What the tests of the ablation layer share."""

import importlib.util
import json
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType

import numpy as np
import optuna
import pytest

from dynops.ablation import read_study
from dynops.ablation.database import shared_at
from dynops.records import RunRecord

Table = dict[str, dict[int, float]]
PATIENCE = 120.0
SCRIPT = """
import os, runpy, sys
log = os.open({log!r}, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
os.dup2(log, 1)
os.dup2(log, 2)
os.environ.update({environment!r})
sys.argv = {argv!r}
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Started:
    """`python PROGRAM FOLDER ...` in a process of its own, without the seconds that its imports take."""

    def __init__(self, folder: Path, *arguments: str, program: str = "killable.py") -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["dynops.cli"])
        self.folder = folder
        self.log = folder.with_name(f"{folder.name}-{time.monotonic_ns()}.log")
        script = SCRIPT.format(
            log=str(self.log),
            # the server from which it is forked has the environment of the test that came first
            environment={name: value for name, value in os.environ.items() if name.startswith("PG")},
            argv=[str(Path(__file__).with_name(program)), str(folder), *arguments],
        )
        self.process = context.Process(target=exec, args=(script,))
        self.process.start()

    def send(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def runs(self, number: int = 1) -> None:
        """Wait until it has started so many runs."""
        began = time.monotonic()
        while not _started(self.folder, self.process.pid) >= number:
            assert self.process.is_alive(), self.log.read_text()
            assert time.monotonic() - began < PATIENCE
            time.sleep(0.01)

    def says(self, text: str) -> None:
        """Wait until it has said something."""
        began = time.monotonic()
        while not (self.log.exists() and text in self.log.read_text()):
            assert self.process.is_alive(), self.log.read_text()
            assert time.monotonic() - began < PATIENCE
            time.sleep(0.01)

    def finish(self) -> tuple[int | None, str]:
        """Wait for its end, and return status and output."""
        self.process.join(PATIENCE)
        return self.process.exitcode, self.log.read_text()


@pytest.fixture(scope="session")
def wait_for() -> Callable[[Callable[[], bool]], None]:
    """Wait until something is so."""

    def wait(condition: Callable[[], bool]) -> None:
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < PATIENCE
            time.sleep(0.01)

    return wait


def _started(folder: Path, process: int | None) -> int:
    path = folder / "executions"
    lines = path.read_text().splitlines() if path.exists() else []
    return sum(line.startswith("start ") and line.endswith(f" {process}") for line in lines)


@pytest.fixture
def start() -> Iterator[Callable[..., Started]]:
    """Start a study that can be killed; what is left of it at the test's end is killed."""
    started = []

    def begin(folder: Path, *arguments: str, **options: str) -> Started:
        started.append(Started(folder, *arguments, **options))
        return started[-1]

    yield begin
    for each in started:
        each.process.kill()
        each.process.join()


def note(file: Path, node: pytest.Item, faults: int, expected: int, points: Counter[str]) -> None:
    """Add a line to the table of faults."""
    where = {"file": node.path.stem, "test": node.name}
    found = {"faults": faults, "expected": expected, "found": len(points), "twice": points.total() - len(points)}
    with open(file, "a") as lines:
        lines.write(json.dumps(where | found) + "\n")


@pytest.fixture(scope="session")
def own_tests() -> Callable[[str], ModuleType]:
    """Import a module that stands beside the tests, under its own name, so that other processes find its functions."""

    def load(name: str) -> ModuleType:
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
            assert spec is not None
            assert spec.loader is not None
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
        return sys.modules[name]

    return load


@pytest.fixture
def check_nothing_lost_nothing_twice(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Check that a study has one accepted record a point, and that its ledger says the same.

    With `--faults FILE` a line goes there: what the test did to the study, and what was found.
    """

    def check(folder: Path, expected: int, faults: int = 0) -> None:
        plan, records = read_study(folder)
        points = Counter(record.point for record in records if record.accepted)
        if faults and (file := request.config.getoption("--faults")):
            note(Path(file), request.node, faults, expected, points)
        assert len(points) == expected
        assert set(points.values()) == {1}
        with closing(shared_at(folder)) as shared:
            trials = optuna.load_study(study_name=shared.name(plan), storage=shared.storage).trials
            leases = len(shared.leases)
        completed = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
        assert sorted(trial.user_attrs["point"] for trial in completed) == sorted(points)
        assert all(trial.state.is_finished() for trial in trials)
        values = {record.point: record.metrics["accuracy"] for record in records}
        for trial in completed:
            assert trial.value == values[trial.user_attrs["point"]]
            assert set(trial.params) == {factor.name for factor in plan.factors}
        assert not leases

    return check


@pytest.fixture(scope="session")
def executions() -> Callable[[Path, str], Counter[str]]:
    """Count how often each run started, or ended."""

    def count(folder: Path, what: str) -> Counter[str]:
        lines = (folder / "executions").read_text().splitlines()
        return Counter(line.split(" ")[1] for line in lines if line.startswith(what))

    return count


@pytest.fixture(scope="session")
def records_of() -> Callable[..., list[RunRecord]]:
    """Make records, seed by seed, from a table of outcomes by cell name and seed."""

    def make(table: Table, metric: str = "accuracy") -> list[RunRecord]:
        seeds = sorted({seed for outcomes in table.values() for seed in outcomes})
        return [
            RunRecord(levels=levels_of(cell), seed=seed, status="complete", metrics={metric: table[cell][seed]})
            for seed in seeds
            for cell in table
            if seed in table[cell]
        ]

    return make


@pytest.fixture(scope="session")
def planted() -> Callable[..., Table]:
    """Make a 2x2 table with two main effects and their interaction, a shift of each seed and noise in each run."""

    def make(dynamic: float, specific: float, both: float, noise: float = 0.0, n: int = 8, seed: int = 0) -> Table:
        generator = np.random.default_rng(seed)
        shift = generator.normal(0.0, 0.05, n)
        return {
            f"kernel={('constant', 'pixel')[a]},channels={('grouped', 'every')[b]}": {
                index: 0.7
                + ((2 * a - 1) * dynamic + (2 * b - 1) * specific + (2 * a - 1) * (2 * b - 1) * both) / 2
                + shift[index]
                + noise * generator.normal()
                for index in range(n)
            }
            for a in (0, 1)
            for b in (0, 1)
        }

    return make


def levels_of(cell: str) -> dict[str, str]:
    """Read the levels off a cell's name."""
    return dict(pair.split("=", 1) for pair in cell.split(","))
