"""Leases: for each running trial who runs it, and when that process last showed that it is alive."""

import faulthandler
import json
import os
import platform
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from threading import Event, Thread

LEASE = 60.0
"""Seconds without a sign of life after which a trial is taken over."""
BEATS = 5
"""Signs of life in that time."""
SILENCE = 1800.0
"""Seconds without progress after which a run that showed some counts as hung, though its process is alive."""


class Tenure(Enum):
    """How a running trial is held."""

    HELD = "held"
    """By a process that is alive, as far as can be told."""
    GIVEN_BACK = "given back"
    """By nobody: the process was interrupted."""
    LOST = "lost"
    """By nobody: the process died, or its run hung."""


class Leases(ABC):
    """The leases of a study; times are those of the place where they lie, so that no clocks need agree."""

    @abstractmethod
    def write(self, trial: int) -> None:
        """Take a trial for this process."""

    @abstractmethod
    def drop(self, trial: int) -> None:
        """Forget a trial, whoever has it."""

    @abstractmethod
    def touch(self, trials: Sequence[int]) -> None:
        """Show that the process that runs them is alive; a lease that was taken away is not made again."""

    @abstractmethod
    def end(self, trials: Sequence[int], tenure: Tenure) -> None:
        """Give trials back, or leave them as those of a process that died."""

    @abstractmethod
    def tenures(self) -> dict[int, Tenure]:
        """Return how each running trial is held."""

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @contextmanager
    def kept(self, trials: Sequence[int], hung: Callable[[], None]) -> Iterator[Callable[[], None]]:
        """Show that this process is alive while a `with` lasts; give trials back if it ends by an exception.

        Args:
            trials: what it runs.
            hung: called from another thread if the run hangs; its trials are then those of anybody.
        Yields:
            What a run calls to show progress. One that did so, and then is silent for half an hour, hangs.
        """
        pulse = _Pulse(self, trials, hung)
        pulse.start()
        try:
            yield pulse.progress
        except BaseException:
            pulse.stop()
            with suppress(Exception):  # what happened before matters more
                self.end(trials, Tenure.GIVEN_BACK)
            raise
        pulse.stop()
        for trial in trials:
            with suppress(Exception):  # a lease that stays behind ends by itself
                self.drop(trial)


class _Pulse:
    """The thread that shows that a process is alive, as long as its run gets on."""

    def __init__(self, leases: Leases, trials: Sequence[int], hung: Callable[[], None]) -> None:
        self._leases, self._trials, self._hung = leases, trials, hung
        self._over = Event()
        self._progress: float | None = None
        self._thread = Thread(target=self._beat, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def progress(self) -> None:
        self._progress = time.monotonic()

    def _beat(self) -> None:
        while not self._over.wait(LEASE / BEATS):
            silent = 0.0 if self._progress is None else time.monotonic() - self._progress
            with suppress(Exception):  # the disk or the database may be out for a while
                if silent <= SILENCE:
                    self._leases.touch(self._trials)
                    continue
                self._leases.end(self._trials, Tenure.LOST)
                print(f"The run made no progress for {silent:.0f} s and counts as hung; it was here:", file=sys.stderr)
                faulthandler.dump_traceback()
                self._hung()
                return


class FolderLeases(Leases):
    """A file for each lease, in a folder; its time is the last sign of life."""

    def __init__(self, folder: Path) -> None:
        """Look at the leases of a study's folder."""
        self._folder = folder.resolve() / "leases"

    def write(self, trial: int) -> None:
        self._folder.mkdir(exist_ok=True)
        self._path(trial).write_text(holder())

    def drop(self, trial: int) -> None:
        self._path(trial).unlink(missing_ok=True)

    def touch(self, trials: Sequence[int]) -> None:
        for trial in trials:
            with suppress(FileNotFoundError):
                os.utime(self._path(trial))

    def end(self, trials: Sequence[int], tenure: Tenure) -> None:
        moment = 0 if tenure == Tenure.GIVEN_BACK else 1
        for trial in trials:
            with suppress(FileNotFoundError):
                os.utime(self._path(trial), (moment, moment))

    def tenures(self) -> dict[int, Tenure]:
        paths = self._paths()
        now = self._now() if paths else 0.0
        found = {}
        for path in paths:
            with suppress(FileNotFoundError):  # it ended meanwhile
                found[int(path.name)] = self._tenure(path, now)
        return found

    def __len__(self) -> int:
        return len(self._paths())

    def _path(self, trial: int) -> Path:
        return self._folder / str(trial)

    def _paths(self) -> list[Path]:
        return [path for path in self._folder.glob("*") if path.name.isdigit()]

    def _now(self) -> float:
        clock = self._folder / "clock"
        clock.touch()
        return clock.stat().st_mtime

    def _tenure(self, path: Path, now: float) -> Tenure:
        touched = path.stat().st_mtime
        if touched == 0:
            return Tenure.GIVEN_BACK
        return Tenure.LOST if now - touched > LEASE or is_dead(path.read_text()) else Tenure.HELD


def holder() -> str:
    """Say which process this is."""
    return json.dumps({"host": _host(), "pid": os.getpid(), "time": time.time()})


def is_dead(said: str) -> bool:
    """Whether a holder was a process of this machine that is no more; then nobody need wait for the lease's end."""
    try:
        found = json.loads(said)
        if found["host"] == _host():
            os.kill(found["pid"], 0)
    except ProcessLookupError:
        return True
    except (ValueError, KeyError, TypeError, PermissionError):  # half written, or a process of another user
        return False
    return False


def _host() -> str:
    """Name what a process id holds for: a machine, or a container on it."""
    try:
        return f"{platform.node()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()
