"""Times of several calls, in turns."""

import sys
import time
from collections.abc import Callable, Hashable, Mapping
from math import ceil
from statistics import median
from typing import Any, TypeVar

import torch
from rich.progress import track

WARM_UP = 3
"""Calls of each that do not count."""
LEAST = 1e-3
"""Seconds that one measurement fills, with as many calls as it takes."""
MOST_CALLS = 200

Key = TypeVar("Key", bound=Hashable)


def in_turns(
    runs: Mapping[Key, Callable[[], Any]], rounds: int, device: torch.device, title: str = ""
) -> dict[Key, list[float]]:
    """Time calls round by round, each once a round, so that what else the machine does falls on all of them alike.

    A call that is shorter than a millisecond is made several times at once, and counts with their mean. On a GPU the
    time is that between two events of its stream: of short calls, what Python takes to launch them.

    Returns:
        By key, the seconds of a call in each round.
    """
    many = {key: _calls(run, device) for key, run in runs.items()}
    found: dict[Key, list[float]] = {key: [] for key in runs}
    for _ in track(range(rounds), description=title, transient=True, disable=not sys.stdout.isatty()):
        for key, run in runs.items():
            found[key].append(seconds(run, device, many[key]))
    return found


def seconds(run: Callable[[], Any], device: torch.device, calls: int = 1) -> float:
    """Return the mean time of a few calls, one behind the other."""
    if device.type == "cuda":
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        begun.record()
        _repeat(run, calls)
        ended.record()
        torch.cuda.synchronize(device)
        return begun.elapsed_time(ended) / 1e3 / calls
    start = time.perf_counter()
    _repeat(run, calls)
    return (time.perf_counter() - start) / calls


def _repeat(run: Callable[[], Any], calls: int) -> None:
    for _ in range(calls):
        run()


def _calls(run: Callable[[], Any], device: torch.device) -> int:
    usual = median(seconds(run, device) for _ in range(WARM_UP))
    return min(MOST_CALLS, max(1, ceil(LEAST / usual)))
