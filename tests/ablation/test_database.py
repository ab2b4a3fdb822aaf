"""Workers that meet in a PostgreSQL database, each with a folder of its own: nothing lost, nothing twice."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from dynops.ablation import Job, read_study
from dynops.ablation.database import InDatabase, shared_at
from dynops.ablation.leases import Tenure
from dynops.ablation.shared import Shared
from dynops.errors import SpecError, StudyError
from dynops.records import RunRecord

pytestmark = pytest.mark.xdist_group("database")  # one server for all
Start = Callable[..., Any]
Check = Callable[..., None]
MOMENTS = (
    "in the middle of a run",
    "while a point is taken",
    "between result and ledger",
)
NAME = "killable"


@pytest.fixture(scope="module")
def server(own_tests: Callable[[str], Any]) -> Iterator[Any]:
    postgres = own_tests("postgres")
    if (programs := postgres.programs()) is None:
        pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    found = postgres.Postgres(programs)
    before = os.environ.get("PGPASSWORD")
    os.environ["PGPASSWORD"] = postgres.PASSWORD
    yield found
    os.environ.pop("PGPASSWORD") if before is None else os.environ.update(PGPASSWORD=before)
    found.remove()


@pytest.fixture
def address(server: Any) -> str:
    """A database with nothing in it."""
    return server.database()


@pytest.fixture
def machines(tmp_path: Path, address: str) -> Callable[[str], tuple[Path, str]]:
    """Give each machine a folder of its own for the study, and the database's address."""

    def machine(name: str) -> tuple[Path, str]:
        (tmp_path / name).mkdir(exist_ok=True)
        return tmp_path / name / NAME, f"--storage={address}"

    return machine


@pytest.fixture
def meet(address: str) -> Iterator[Callable[[Path], Shared]]:
    """Look at a study in the database."""
    with ExitStack() as stack:
        yield lambda folder: stack.enter_context(closing(shared_at(folder, address)))


def end(*started: Any) -> list[str]:
    """Wait for processes that end well, and return what they said."""
    endings = [each.finish() for each in started]
    assert [code for code, _ in endings] == [0] * len(started), endings
    return [output for _, output in endings]


def test_machines_without_a_common_folder_share_a_study(
    machines: Any, start: Start, check_nothing_lost_nothing_twice: Check, executions: Any
) -> None:
    (first, storage), (second, _) = machines("first"), machines("second")
    end(*(start(folder, storage, "--seconds=0.2", "--seeds=4") for folder in (first, second)))
    for folder in (first, second):
        check_nothing_lost_nothing_twice(folder, 16)
    ran = [executions(folder, "end") for folder in (first, second)]
    assert all(ran), "one machine did all"
    assert sum(sum(each.values()) for each in ran) == 16
    assert read_study(first) == read_study(second)


def test_they_tune_and_compare(machines: Any, start: Start, check_nothing_lost_nothing_twice: Check) -> None:
    (first, storage), (second, _) = machines("first"), machines("second")
    end(*(start(folder, storage, "--seconds=0.1", "--tuned=true") for folder in (first, second)))
    for folder in (first, second, first / "tuning", second / "tuning"):
        check_nothing_lost_nothing_twice(folder, 8)


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_other_machine_goes_on_after_a_kill(
    machines: Any, start: Start, check_nothing_lost_nothing_twice: Check, moment: str
) -> None:
    (first, storage), (second, _) = machines("first"), machines("second")
    killed = start(first, storage, "--seconds=0.2", f"--moment={moment}", "--number=2")
    other = start(second, storage, "--seconds=0.2")
    assert killed.finish()[0] == -signal.SIGKILL
    end(other)
    check_nothing_lost_nothing_twice(second, 8, faults=1)


def test_a_result_of_a_machine_that_died_is_entered_when_it_is_back(
    machines: Any, start: Start, check_nothing_lost_nothing_twice: Check, executions: Any
) -> None:
    folder, storage = machines("first")
    assert start(folder, storage, "--moment=between result and ledger", "--number=1").finish()[0] == -signal.SIGKILL
    end(start(folder, storage))
    check_nothing_lost_nothing_twice(folder, 8, faults=1)
    assert set(executions(folder, "end").values()) == {1}, "a finished run was run again"


def test_who_comes_back_after_the_lease_finds_its_point_done(
    machines: Any, start: Start, check_nothing_lost_nothing_twice: Check
) -> None:
    (first, storage), (second, _) = machines("first"), machines("second")
    stopped = start(first, storage, "--seconds=1")
    stopped.runs()
    stopped.send(signal.SIGSTOP)
    end(start(second, storage))
    stopped.send(signal.SIGCONT)
    (said,) = end(stopped)
    assert "seed 0: another process was first; its result counts." in said
    for folder in (first, second):
        check_nothing_lost_nothing_twice(folder, 8, faults=1)


def test_workers_wait_for_a_database_that_restarts(
    machines: Any, server: Any, start: Start, check_nothing_lost_nothing_twice: Check, executions: Any
) -> None:
    (first, storage), (second, _) = machines("first"), machines("second")
    started = [start(folder, storage, "--seconds=0.3", "--seeds=4") for folder in (first, second)]
    for each in started:
        each.runs(2)
    server.stop()
    time.sleep(1.5)  # they have something to enter
    server.start()
    said = end(*started)
    assert any("does not answer" in each and "trying again in 1 s." in each for each in said)
    for folder in (first, second):
        check_nothing_lost_nothing_twice(folder, 16, faults=1)


def test_failed_points_are_run_again_elsewhere(machines: Any, own_tests: Callable[[str], Any], address: str) -> None:
    killable = own_tests("killable")

    def fail(job: Job) -> RunRecord:
        raise ZeroDivisionError("planted")

    (first, _), (second, _) = machines("first"), machines("second")
    records = killable.make(fail).execute(first, storage=address)
    assert len(records) == 8
    assert all("ZeroDivisionError: planted" in record.reason for record in records)
    records = killable.make(killable.record_of).execute(second, storage=address, retry_failed=True)
    assert sum(record.accepted for record in records) == 8
    assert len(killable.make(killable.record_of).execute(first)) == 16, "the folder knows its database"


def test_one_result_of_a_point_can_be_entered(
    machines: Any, meet: Callable[[Path], Shared], own_tests: Callable[[str], Any], address: str
) -> None:
    killable = own_tests("killable")
    (first, _), (second, _) = machines("first"), machines("second")
    (record, *_) = killable.make(killable.record_of).execute(first, storage=address)
    shared = meet(second)
    assert not shared.keep(
        RunRecord(levels=record.levels, seed=record.seed, status="complete", metrics={"accuracy": 0})
    )
    assert meet(first).keep(record), "it is the same"
    found = shared.read()
    assert found is not None
    assert [each for each in found[1] if each.point == record.point] == [record]


def test_leases_are_measured_by_the_clock_of_the_database(machines: Any, meet: Callable[[Path], Shared]) -> None:
    shared = meet(machines("first")[0])
    shared.leases.write(3)
    shared.leases.write(5)
    assert shared.leases.tenures() == {3: Tenure.HELD, 5: Tenure.HELD}
    assert isinstance(shared, InDatabase)
    late = text("update dynops_lease set touched = now() - interval '61 seconds' where trial = 3")
    with shared._engine.begin() as connection:
        connection.execute(late)
    assert shared.leases.tenures() == {3: Tenure.LOST, 5: Tenure.HELD}
    shared.leases.touch([3, 4])
    shared.leases.end([5], Tenure.GIVEN_BACK)
    assert shared.leases.tenures() == {3: Tenure.HELD, 5: Tenure.GIVEN_BACK}, "what is not there is not made"
    shared.leases.drop(5)
    assert len(shared.leases) == 1


def test_no_password_is_written_anywhere(machines: Any, start: Start, own_tests: Callable[[str], Any]) -> None:
    folder, storage = machines("first")
    (said,) = end(start(folder, storage, "--workers=2"))
    password = own_tests("postgres").PASSWORD
    assert password not in said
    files = [path for path in folder.parent.parent.rglob("*") if path.is_file()]
    assert any(path.parent.name == "workers" for path in files)
    assert not [path for path in files if password.encode() in path.read_bytes()]


@pytest.mark.parametrize("address", ["postgresql://me:secret@host/db", "postgresql://me@host/db?password=secret"])
def test_an_address_with_a_password_is_refused_and_not_repeated(tmp_path: Path, address: str) -> None:
    with pytest.raises(SpecError, match="storage has a password in it: must be postgresql://user@host") as error:
        shared_at(tmp_path, address)
    assert "secret" not in str(error.value)


def test_what_is_no_database_is_refused(tmp_path: Path, address: str, own_tests: Callable[[str], Any]) -> None:
    with pytest.raises(SpecError, match="storage has a database of kind 'sqlite': must be postgresql://"):
        shared_at(tmp_path, "sqlite:///study.db")
    with pytest.raises(SpecError, match="storage has no address of a database: must be postgresql://"):
        shared_at(tmp_path, "somewhere")
    with pytest.raises(StudyError, match=r"127\.0\.0\.1:1/none does not answer \(.*refused.*\): it must run"):
        shared_at(tmp_path, "postgresql://me@127.0.0.1:1/none")
    wrong = address.replace("dynops@", "stranger@")
    with pytest.raises(StudyError, match=r"does not answer \(.*password authentication failed.*\): it must run"):
        shared_at(tmp_path, wrong)
    killable = own_tests("killable")
    killable.make(killable.record_of).execute(tmp_path / "own")
    with pytest.raises(StudyError, match="own has a study of its own, storage has postgresql"):
        shared_at(tmp_path / "own", address)
    killable.make(killable.record_of).execute(tmp_path / "copy", storage=address)
    with pytest.raises(
        StudyError, match=r"copy has a copy from .*, storage has postgresql.*_other: use another folder"
    ):
        shared_at(tmp_path / "copy", address + "_other")
