"""Workers on a Ray cluster: tasks that work on a study, one in each place of the cluster, and again where one died."""

import math
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from threading import Event, Thread, Timer
from types import ModuleType
from typing import Any

import torch

from dynops.errors import DynopsError, SpecError, StudyError
from dynops.specs import at_least

GONE = 3  # status of a process whose cluster is gone
PAUSE = 1.0  # seconds between two looks at the cluster
MISSES = 5  # looks in a row that the head doesn't answer, after which it is taken for dead
PATIENCE = 30.0  # seconds in which a cluster must have let this process in
GRACE = 5.0  # seconds in which workers may see that all is settled, or give back what they run
START = "Start one with `ray start --head`, or give the address of another one's head, HOST:PORT"

Work = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Share:
    """What of a node a worker has."""

    cpus: float
    """Cores; may be a part of one."""
    gpus: float
    """GPUs; may be a part of one."""

    def __post_init__(self) -> None:
        """Check that Ray can give it."""
        if self.cpus <= 0:
            raise SpecError(f"cpus has {self.cpus}: must be above 0.")
        if self.gpus < 0 or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise SpecError(f"gpus has {self.gpus}: must be a whole number, or a part of one GPU.")

    def fits(self, node: Mapping[str, float]) -> int:
        """How many such shares a node with these resources holds."""
        needs = {"CPU": self.cpus, "GPU": self.gpus}
        # one third fits three times, whatever is lost to rounding
        return min(math.floor(node.get(name, 0.0) / need + 1e-6) for name, need in needs.items() if need)


@dataclass(frozen=True, kw_only=True)
class Ray:
    """A Ray cluster that works on a study, in as many places as it has."""

    address: str = "auto"
    """The head's, HOST:PORT; `auto` finds the cluster that runs on this machine."""
    cpus: float = 1.0
    """Cores of each worker, and its threads."""
    gpus: float | None = None
    """GPUs of each worker, or a part of one; None: one where the cluster has any at the start."""
    most: int | None = None
    """Workers at once; None: as many as there is room for."""

    def __post_init__(self) -> None:
        """Check what can be checked without a cluster."""
        Share(cpus=self.cpus, gpus=self.gpus or 0)
        if self.most is not None:
            at_least("most", self.most, 1)

    def employ(self, work: Work) -> None:
        """Work on a study until it is settled.

        As many workers as the cluster holds are at work at once, more when nodes join. What dies is started again by
        Ray, where there is room. A worker that ends by an error says so, and the others go on.

        Where the cluster's head dies, or does not let this process in, Ray would hang: this process then says so and
        ends with status 3. So it should be a process of its own.

        Args:
            work: one worker, which returns when the study is settled, by whomever; can be pickled, and its modules can
                be imported on all nodes.
        Raises:
            SpecError: Ray is not installed.
            StudyError: there is no cluster at the address, or all workers ended by an error.
        """
        ray = _library()
        with _joined(ray, self.address):
            gpus = self.gpus
            if gpus is None:
                gpus = 1 if any(node.get("GPU") for node in _nodes(ray)) else 0
            _Crew(ray, work, Share(cpus=self.cpus, gpus=gpus), self.most).settle()


class _Crew:
    """The workers that this process started."""

    def __init__(self, ray: ModuleType, work: Work, share: Share, most: int | None) -> None:
        self._ray, self._work, self._share, self._most = ray, work, share, most
        options = {"num_cpus": share.cpus, "num_gpus": share.gpus, "max_retries": -1, "scheduling_strategy": "SPREAD"}
        self._task = ray.remote(**options)(worker)
        self._going: list[Any] = []
        self._started = 0
        self._errors: list[str] = []
        self._waits = False

    def settle(self) -> None:
        """Have workers at work until one returns: then all is settled, and the others soon see it."""
        try:
            while not self._look():
                self._grow()
                if self._started == len(self._errors):
                    raise StudyError(f"The study has no worker left, {self._started} of Ray's ended: {self._errors[0]}")
        except KeyboardInterrupt:
            for each in self._going:
                self._ray.cancel(each, recursive=False)  # an exception in the worker, which gives back what it runs
            raise
        finally:
            if self._going:
                self._ray.wait(self._going, num_returns=len(self._going), timeout=GRACE)

    def _grow(self) -> None:
        """Start a worker for each new place; one at least, so that a cluster that scales itself sees a need."""
        nodes = _nodes(self._ray)
        places = sum(self._share.fits(node) for node in nodes)
        if not places and not self._waits:
            self._waits = True
            largest = max(nodes, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)), default={})
            _say(
                f"A run needs {self._share.cpus:g} CPU and {self._share.gpus:g} GPU, the largest node of the cluster "
                f"has {largest.get('CPU', 0):g} and {largest.get('GPU', 0):g}: waiting for a node that can hold a run."
            )
        while self._started < min(max(places, 1), self._most or math.inf):
            self._going.append(self._task.remote(self._work, max(1, int(self._share.cpus))))
            self._started += 1

    def _look(self) -> bool:
        """Wait a little, and say whether a worker has returned."""
        ended, self._going = self._ray.wait(self._going, timeout=PAUSE) if self._going else ([], [])
        for each in ended:
            try:
                self._ray.get(each)
            except Exception as error:  # whatever ended a worker, the others go on
                self._errors.append(_reason(error))
                _say(f"A worker ended: {self._errors[-1]}")
            else:
                return True
        return False


def worker(work: Work, threads: int) -> None:
    """Be a worker, in a process of Ray's."""
    torch.set_num_threads(threads)
    work()


def _library() -> ModuleType:
    # else Ray leaves out lines that several workers say, colours the others, and says again and again what is awaited
    os.environ.update({"RAY_DEDUP_LOGS": "0", "RAY_COLOR_PREFIX": "0", "RAY_SCHEDULER_EVENTS": "0"})
    try:
        return import_module("ray")
    except ModuleNotFoundError as error:
        raise SpecError(f"ray has {error}: a cluster needs it. Run pip install 'dynops[ray]'.") from error


@contextmanager
def _joined(ray: ModuleType, address: str) -> Iterator[None]:
    """Be a client of a cluster while a `with` lasts, and no longer than its head is alive."""
    if address != "auto" and not _answers(address):
        raise StudyError(f"address has {address}: no Ray cluster answers there. {START}.")
    # Ray would go on knocking for minutes where nobody is, as at the last address of a cluster that died
    timer = Timer(PATIENCE, _end, [f"address has {address}: no Ray cluster let us in for {PATIENCE:g} s. {START}."])
    timer.daemon = True
    timer.start()
    try:
        ray.init(address=address, logging_level="warning")
    except (ConnectionError, RuntimeError) as error:
        raise StudyError(f"address has {address}: no Ray cluster could be joined ({error}). {START}.") from error
    finally:
        timer.cancel()
    over = Event()
    Thread(target=_watch, args=(ray.get_runtime_context().gcs_address, over), daemon=True).start()
    try:
        yield
    finally:
        ray.shutdown()
        over.set()


def _watch(head: str, over: Event) -> None:
    """End this process when the head is dead: what waits for Ray would wait for ever."""
    misses = 0
    while not over.wait(PAUSE):
        misses = 0 if _answers(head) else misses + 1
        if misses == MISSES:
            _end(
                f"Ray's head at {head} does not answer: it died, or can't be reached. Start the cluster again. "
                "The same command goes on from here."
            )


def _end(text: str) -> None:
    """End this process from a thread, with its last words."""
    sys.stdout.flush()
    _say(text)
    os._exit(GONE)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise SpecError(f"address has {address!r}: must be auto, or HOST:PORT of the cluster's head.")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=PAUSE):
            return True
    except OSError:
        return False


def _nodes(ray: ModuleType) -> list[dict[str, float]]:
    """What each node has that is alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _reason(error: Exception) -> str:
    """Why a worker ended: in the words of dynops, or in Ray's, with the worker's traceback."""
    cause = getattr(error, "cause", None)
    return str(cause if isinstance(cause, DynopsError) else error)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
