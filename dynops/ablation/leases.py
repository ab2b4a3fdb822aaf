"""Leases: a file for each running trial that says which process runs it, and by its time that the process is alive."""

import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from threading import Event, Thread

LEASE = 60.0
"""Seconds without a sign of life after which a trial is taken over."""
BEATS = 5
"""Signs of life in that time."""


class Tenure(Enum):
    """How a running trial is held."""

    HELD = "held"
    """By a process that is alive, as far as can be told."""
    GIVEN_BACK = "given back"
    """By nobody: the process was interrupted."""
    LOST = "lost"
    """By nobody: the process died."""


class Leases:
    """The leases of a study, in its folder; times are those of the folder's file system, so clocks need not agree."""

    def __init__(self, folder: Path) -> None:
        """Look at the leases of a study."""
        self._folder = folder.resolve() / "leases"

    def write(self, trial: int) -> None:
        """Take a trial for this process."""
        self._folder.mkdir(exist_ok=True)
        holder = {"host": _host(), "pid": os.getpid(), "time": time.time()}
        (self._folder / str(trial)).write_text(json.dumps(holder))

    def drop(self, trial: int) -> None:
        """Forget a trial, whoever has it."""
        (self._folder / str(trial)).unlink(missing_ok=True)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._paths())

    def tenures(self) -> dict[int, Tenure]:
        """Return how each running trial is held."""
        paths = self._paths()
        now = self._now() if paths else 0.0
        found = {}
        for path in paths:
            with suppress(FileNotFoundError):  # it ended meanwhile
                found[int(path.name)] = _tenure(path, now)
        return found

    @contextmanager
    def kept(self, trials: Sequence[int]) -> Iterator[None]:
        """Show that this process is alive while a `with` lasts; give trials back if it ends by an exception."""
        paths = [self._folder / str(trial) for trial in trials]
        over = Event()
        beat = Thread(target=_beat, args=(paths, over), daemon=True)
        beat.start()
        try:
            yield
        except BaseException:
            over.set()
            beat.join()
            for path in paths:
                with suppress(OSError):
                    os.utime(path, (0, 0))
            raise
        over.set()
        beat.join()
        for trial in trials:
            self.drop(trial)

    def _paths(self) -> list[Path]:
        return [path for path in self._folder.glob("*") if path.name.isdigit()]

    def _now(self) -> float:
        clock = self._folder / "clock"
        clock.touch()
        return clock.stat().st_mtime


def _beat(paths: Sequence[Path], over: Event) -> None:
    while not over.wait(LEASE / BEATS):
        for path in paths:
            with suppress(OSError):  # a lease that was taken away is not made again
                os.utime(path)


def _tenure(path: Path, now: float) -> Tenure:
    touched = path.stat().st_mtime
    if touched == 0:
        return Tenure.GIVEN_BACK
    return Tenure.LOST if now - touched > LEASE or _is_dead(path) else Tenure.HELD


def _is_dead(path: Path) -> bool:
    """Whether the holder was a process of this machine that is no more; then nobody need wait for the lease's end."""
    try:
        holder = json.loads(path.read_text())
        if holder["host"] == _host():
            os.kill(holder["pid"], 0)
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
