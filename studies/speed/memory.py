"""Peak memory of a call, beyond its inputs and outputs.

On a GPU it is the peak of torch's allocator. On a CPU torch's own count would miss what libraries in C take for
themselves, ours as well as oneDNN's, so it is the peak of the process's resident set, which Linux counts from any
moment on: in a process of its own, which gives freed memory back at once, after calls that have filled what is filled
only once. It is exact to some hundred KiB.
"""

import ctypes
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from dynops.errors import StudyError
from studies.speed.peers import DIRECTIONS, Built, calls, peers
from studies.speed.place import Place

PROCESS = Path("/proc/self")
TIMES = 2
RETURNED = 1 << 16
"""Bytes from which on the C library gives memory back as soon as it is freed."""
M_MMAP_THRESHOLD = -3

P = ParamSpec("P")
T = TypeVar("T")
Peaks = dict[str, dict[str, dict[str, int] | str]]
"""By peer and direction: `extra` bytes, and those `held` by inputs and outputs; or why there is no number."""


def measure(place: Place, names: Iterable[str], threads: int) -> Peaks:
    """Measure the peaks of peers at a place, by peer and direction."""
    if place.device.type == "cuda":
        return _peaks(place, tuple(names), threads)
    if not (PROCESS / "clear_refs").exists():
        return {name: dict.fromkeys(DIRECTIONS, "needs Linux") for name in names}
    return apart(_peaks, place, tuple(names), threads)


def peak(run: Callable[[], Any], device: torch.device) -> int:
    """Return the most bytes that a call holds at once beyond those held before, its results among them.

    Args:
        run: a call that was made before; on a CPU in a process of its own, see `apart`.
        device: where it runs.
    """
    return min(_grown(run, device) for _ in range(TIMES))


def apart(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what a function of a module returns in a fresh process that gives freed memory back at once.

    Raises:
        StudyError: the process was killed.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=_give_back) as pool:
        try:
            return pool.submit(function, *args, **kwargs).result()
        except BrokenProcessPool as error:
            raise StudyError(
                "memory has no peak: the process that measures it was killed. Free memory, and start again: what was "
                "measured is kept."
            ) from error


def size(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def resident(name: str) -> int:
    """Return a number of bytes that Linux counts of this process: `VmRSS`, resident now, or `VmHWM`, its peak."""
    for line in (PROCESS / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise LookupError(f"{PROCESS}/status has no {name}: Linux writes it.")


def _peaks(place: Place, names: tuple[str, ...], threads: int) -> Peaks:
    torch.set_num_threads(threads)
    found: Peaks = {}
    for name in names:
        (peer,) = peers(place, [name]).values()  # one at a time: a GPU holds no other's inputs
        found[name] = _of_peer(name, peer, place.device)
    return found


def _of_peer(name: str, peer: Built, device: torch.device) -> dict[str, dict[str, int] | str]:
    found: dict[str, dict[str, int] | str] = {}
    for direction, call in calls(name, peer).items():
        if isinstance(call, str) or isinstance(peer, str):
            found[direction] = str(call)
            continue
        sizes = [size([each]) for each in call()]
        slope = sizes[0] if direction == "both" else 0  # it has the shape of the result
        extra = peak(call, device) - sum(sizes)
        found[direction] = {"extra": max(0, extra), "held": size(peer.inputs) + slope + sum(sizes)}
    return found


def _grown(run: Callable[[], Any], device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        kept = run()
        torch.cuda.synchronize(device)
        del kept
        return torch.cuda.max_memory_allocated(device) - before
    (PROCESS / "clear_refs").write_text("5")  # the peak begins at what is resident now
    before = resident("VmRSS")
    kept = run()
    after = resident("VmHWM")
    del kept
    return after - before


def _give_back() -> None:
    if set_option := getattr(ctypes.CDLL(None), "mallopt", None):
        set_option(M_MMAP_THRESHOLD, RETURNED)
