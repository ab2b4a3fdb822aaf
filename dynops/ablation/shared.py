"""What the workers of a study share, and where it lies: in a folder that all of them see, or in a database."""

import errno
import os
import platform
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Self

from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from dynops.ablation.leases import FolderLeases, Leases
from dynops.ablation.plan import Plan
from dynops.ablation.store import RECORDS, held, read_plan, read_study, write_study
from dynops.errors import StudyError
from dynops.records import RunRecord, append_record, cell_name, write_atomically

JOURNAL = "journal.log"
RESULT = "result.json"
MAKER = "study.json"
GRACE = 3
"""Seconds after which the lock of Optuna's journal is broken."""
FULL = (errno.ENOSPC, errno.EDQUOT)
AWAY = (errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EHOSTDOWN)


class Shared(ABC):
    """A study's plan, records, leases and trials, as all its workers see them.

    Every machine also has a folder of the study: its runs with their checkpoints, and `records.jsonl`, from which all
    who only read a study read it.
    """

    def __init__(self, folder: Path, leases: Leases) -> None:
        """Look at a study; nothing is made yet."""
        self.folder, self.leases = folder, leases

    @abstractmethod
    def part(self, name: str) -> Self:
        """Return the place of a study within the study."""

    @abstractmethod
    def held(self) -> AbstractContextManager[object]:
        """Hold all of it for this process alone while a `with` lasts; wait until who holds it lets go."""

    @abstractmethod
    def plan(self) -> Plan | None:
        """Return the plan, None where no study began."""

    @abstractmethod
    def read(self) -> tuple[Plan, list[RunRecord]] | None:
        """Return the plan and the records, None where no study began."""

    @abstractmethod
    def write(self, plan: Plan, records: Sequence[RunRecord]) -> None:
        """Put a plan and all records in the place of what is there."""

    @abstractmethod
    def append(self, record: RunRecord) -> None:
        """Add a record."""

    @abstractmethod
    def remember(self, maker: str) -> None:
        """Keep what says how the study is made again."""

    @abstractmethod
    def maker(self) -> str | None:
        """Return what was kept, None where nothing was."""

    @abstractmethod
    def name(self, plan: Plan) -> str:
        """Name the study in Optuna's storage."""

    @abstractmethod
    def mend(self) -> None:
        """Cut off what a process that died left half written."""

    @abstractmethod
    def look(self) -> None:
        """Bring the folder's records up to what is shared, if that can be reached."""

    def running(self) -> int:
        """How many trials run, as far as can be told."""
        try:
            return len(self.leases)
        except Exception as error:  # whoever has a result to enter waits, and says so
            if self.outage(error) is None:
                raise
            return 0

    @abstractmethod
    def close(self) -> None:
        """Drop connections, and what is known of Optuna's storage; whoever needs them again gets new ones."""

    @property
    @abstractmethod
    def storage(self) -> BaseStorage:
        """Optuna's storage."""

    def outage(self, error: BaseException) -> str | None:
        """Say what is wrong with the place, where an error comes from that and may pass; None where it does not."""
        if not isinstance(error, OSError) or error.errno not in FULL + AWAY:
            return None
        return f"{self.folder} is on a {'full disk' if error.errno in FULL else 'disk that does not answer'} ({error})"

    def keep(self, record: RunRecord) -> bool:
        """Put a result on disk, where it counts from then on; return False, and leave all, if another is there.

        To be called while the study is held.
        """
        place = run_folder(self.folder, record.levels, record.seed) / RESULT
        text = record.to_json() + "\n"
        if place.exists():
            return place.read_text() == text
        waiting = place.with_name(f"{RESULT}.{platform.node()}.{os.getpid()}")
        write_atomically(waiting, text)
        try:
            os.link(waiting, place)  # the one call that can't replace a file, should the lock ever fail
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            os.replace(waiting, place)
        finally:
            waiting.unlink(missing_ok=True)
        return True


class InFolder(Shared):
    """A study in a folder that all its workers see."""

    def __init__(self, folder: Path) -> None:
        """Look at a folder; it need not be there."""
        super().__init__(folder, FolderLeases(folder))

    def part(self, name: str) -> "InFolder":
        return InFolder(self.folder / name)

    def held(self) -> AbstractContextManager[object]:
        return held(self.folder, wait=True)

    def plan(self) -> Plan | None:
        if (self.folder / RECORDS).exists():
            return read_plan(self.folder, Plan, "study")
        if (self.folder / "runs").exists():
            raise StudyError(f"{self.folder} has runs but no {RECORDS}: restore that file, or use another folder.")
        return None

    def read(self) -> tuple[Plan, list[RunRecord]] | None:
        return None if self.plan() is None else read_study(self.folder)

    def write(self, plan: Plan, records: Sequence[RunRecord]) -> None:
        write_study(self.folder, plan, records)

    def append(self, record: RunRecord) -> None:
        append_record(self.folder / RECORDS, record)

    def remember(self, maker: str) -> None:
        write_atomically(self.folder / MAKER, maker + "\n")

    def maker(self) -> str | None:
        return (self.folder / MAKER).read_text() if (self.folder / MAKER).exists() else None

    def name(self, plan: Plan) -> str:
        return plan.name

    def mend(self) -> None:
        _drop_torn_tail(self._journal)

    def look(self) -> None:
        """Do nothing: they are what is shared."""

    def close(self) -> None:
        self.__dict__.pop("storage", None)

    @cached_property
    def storage(self) -> BaseStorage:
        self.mend()
        # the absolute path and this lock are the pair that a stale lock cannot hang; under the folder's lock a lock
        # that is some seconds old is stale
        lock = JournalFileOpenLock(str(self._journal), grace_period=GRACE)
        try:
            return JournalStorage(JournalFileBackend(str(self._journal), lock_obj=lock))
        except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
            raise StudyError(
                f"{self._journal} has a line that is none of Optuna's ({error!r}): remove that file; it is made anew "
                "from the results, which are elsewhere."
            ) from error

    @property
    def _journal(self) -> Path:
        return (self.folder / JOURNAL).resolve()


def run_folder(folder: Path, levels: Mapping[str, str], seed: int) -> Path:
    """Return the folder of one run."""
    return folder / "runs" / cell_name(levels) / f"seed={seed}"


def _drop_torn_tail(path: Path) -> None:
    """Cut what a kill left half written at the end; the next line would be glued to it, and no line could be read."""
    if not path.exists() or not path.stat().st_size:
        return
    with open(path, "rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.flush()
        os.fsync(file.fileno())
