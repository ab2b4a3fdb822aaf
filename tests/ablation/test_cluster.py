"""A study on a Ray cluster, whose workers, nodes and head die for real: nothing is lost, nothing counts twice."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from dynops.ablation.cluster import Ray, Share
from dynops.errors import SpecError, StudyError

PATIENCE = 60.0
POINTS = 8
HEAD, SECOND = "127.0.0.2", "127.0.0.3"  # for 127.0.0.1 Ray takes the machine's address in its network
pytestmark = pytest.mark.xdist_group("cluster")  # one server for all
Start = Callable[..., Any]
Check = Callable[..., None]


def until(condition: Callable[[], Any], process: Any = None) -> Any:
    """Wait until something holds, and return it; no longer than a process lives."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end
        assert process is None or process.process.is_alive(), process.log.read_text()
        time.sleep(0.02)
    return found


class Node:
    """`ray start` with all that it starts."""

    def __init__(self, temp: Path, host: str, *options: str, cpus: int = 1, gpus: int = 0) -> None:
        self.log = temp / f"{host}-{time.monotonic_ns()}.log"
        words = ("--block", f"--node-ip-address={host}", f"--num-cpus={cpus}", f"--num-gpus={gpus}")
        rest = ("--disable-usage-stats", "--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=80000000")
        program = (sys.executable, "-m", "ray.scripts.scripts", "start")
        with open(self.log, "w") as log:
            self.process = subprocess.Popen([*program, *words, *rest, *options], stdout=log, stderr=log)
        try:
            until(lambda: "runtime started" in self.log.read_text() or not self.alive)
            assert self.alive, self.log.read_text()
        except BaseException:
            self.kill()
            raise

    def processes(self) -> list[psutil.Process]:
        me = psutil.Process(self.process.pid)
        return [me, *me.children(recursive=True)]

    def workers(self) -> set[int]:
        return {each.pid for each in self.processes()}

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """Lose the node: nothing of it can still say anything."""
        if self.alive:
            for each in self.processes():
                with suppress(ProcessLookupError):  # it ended with its parent
                    os.kill(each.pid, signal.SIGKILL)
        self.process.wait()


class Cluster:
    """A head and a second node, each with one CPU."""

    def __init__(self, temp: Path) -> None:
        self.temp = temp
        self.nodes: list[Node] = []

    def start(self) -> None:
        """Start what is not alive, and end what is too much."""
        if not self.nodes or not self.head.alive:
            self.kill()
            with socket.create_server((HEAD, 0)) as free:
                client = f"--ray-client-server-port={free.getsockname()[1]}"
            head = ("--head", "--port=0", "--include-dashboard=false", f"--temp-dir={self.temp}", client)
            self.nodes = [Node(self.temp, HEAD, *head)]
            found = re.search(rf"{HEAD}:\d+", self.head.log.read_text())
            assert found is not None
            self.address = found[0]
        while len(self.nodes) > 2:
            self.lose()
        if len(self.nodes) < 2:
            self.join()

    def join(self, cpus: int = 1, gpus: int = 0) -> None:
        """Add a node."""
        options = (f"--address={self.address}", "--include-log-monitor=false")
        self.nodes.append(Node(self.temp, SECOND, *options, cpus=cpus, gpus=gpus))

    @property
    def head(self) -> Node:
        return self.nodes[0]

    @property
    def second(self) -> Node:
        return self.nodes[1]

    def lose(self) -> None:
        """Kill the node that came last."""
        self.nodes.pop().kill()

    def kill(self) -> None:
        while self.nodes:
            self.lose()


@pytest.fixture(scope="module")
def machines() -> Iterator[Cluster]:
    # not pytest's folder: its path is too long for a socket
    temp = Path(tempfile.mkdtemp(prefix="ray"))
    found = Cluster(temp)
    yield found
    found.kill()
    shutil.rmtree(temp, ignore_errors=True)


@pytest.fixture
def cluster(machines: Cluster) -> Cluster:
    machines.start()
    return machines


class Call:
    """A process that calls `employ` on the cluster, for a study whose runs last until they are let go."""

    def __init__(self, start: Start, cluster: Cluster, folder: Path) -> None:
        self.folder, self.hold = folder, folder.with_suffix(".hold")
        self._start, self._cluster = start, cluster

    def __call__(self, *options: str) -> Any:
        """Start it."""
        return self._start(self.folder, self._cluster.address, *options, program="employed.py")

    def running(self) -> set[int]:
        """The processes that are in the middle of a run."""
        return {number for number, what in self.last().items() if what == "start" and psutil.pid_exists(number)}

    def last(self) -> dict[int, str]:
        """What each process did last: start a run, or end it."""
        path = self.folder / "executions"
        lines = [line.split(" ") for line in path.read_text().splitlines()] if path.exists() else []
        return {int(process): what for what, _, process in lines}

    def on(self, node: Node) -> set[int]:
        """Those of a node."""
        return self.running() & node.workers()


@pytest.fixture
def call(start: Start, cluster: Cluster, tmp_path: Path) -> Call:
    return Call(start, cluster, tmp_path / "study")


def test_a_study_outlives_workers_and_nodes_and_uses_nodes_that_join(
    cluster: Cluster, call: Call, check_nothing_lost_nothing_twice: Check
) -> None:
    call.hold.touch()
    began = call()
    until(lambda: call.on(cluster.head) and call.on(cluster.second), began)
    (killed,) = call.on(cluster.head)
    os.kill(killed, signal.SIGKILL)
    until(lambda: call.on(cluster.head) - {killed}, began)
    cluster.lose()
    cluster.join()
    until(lambda: call.on(cluster.second), began)
    call.hold.unlink()
    code, output = began.finish()
    assert code == 0, output
    assert "seed 1: accuracy" in output, "what the workers say does not arrive"
    check_nothing_lost_nothing_twice(call.folder, POINTS, faults=2)


def test_a_study_waits_for_a_node_that_can_hold_a_run(
    cluster: Cluster, call: Call, check_nothing_lost_nothing_twice: Check
) -> None:
    began = call("--cpus=2", "--gpus=1")
    needs = "A run needs 2 CPU and 1 GPU, the largest node of the cluster has 1 and 0: waiting"
    until(lambda: began.log.exists() and needs in began.log.read_text(), began)
    cluster.join(cpus=2, gpus=1)
    code, output = began.finish()
    assert code == 0, output
    assert output.count(needs) == 1
    check_nothing_lost_nothing_twice(call.folder, POINTS)


def test_a_worker_that_refuses_says_so_and_the_others_go_on(
    call: Call, check_nothing_lost_nothing_twice: Check
) -> None:
    code, output = call("--refusals=1").finish()
    assert code == 0, output
    assert output.count("A worker ended: folder has another study: must be this one.\n") == 1
    check_nothing_lost_nothing_twice(call.folder, POINTS)
    # a node that just died still counts as a place
    code, output = call("--refusals=9").finish()
    assert code == 2, output
    left = r"The study has no worker left, \d of Ray's ended: folder has another study"
    assert re.search(left, " ".join(output.split())), output


def test_ctrl_c_gives_back_what_runs(call: Call) -> None:
    call.hold.touch()
    interrupted = call()
    until(lambda: len(call.running()) == 2, interrupted)
    interrupted.send(signal.SIGINT)
    code, output = interrupted.finish()
    assert code == 130, output
    leases = [path for path in (call.folder / "leases").iterdir() if path.name.isdigit()]
    assert [path.stat().st_mtime for path in leases] == [0.0, 0.0]


def test_the_same_call_goes_on_after_the_caller_died_and_after_the_head_died(
    cluster: Cluster, call: Call, check_nothing_lost_nothing_twice: Check
) -> None:
    call.hold.touch()
    killed = call()
    until(lambda: len(call.running()) == 2, killed)
    killed.send(signal.SIGKILL)
    until(lambda: not call.running())  # Ray ends what nobody waits for
    left = call()
    until(lambda: len(call.running()) == 2, left)
    lost, address = time.monotonic(), cluster.address
    cluster.head.kill()
    code, output = left.finish()
    assert time.monotonic() - lost < 20
    assert code == 3, output
    assert f"Ray's head at {address} does not answer: it died, or can't be reached." in output
    assert output.strip().endswith("The same command goes on from here.")
    cluster.start()
    call.hold.unlink()
    before = set(call.last())
    code, output = call("--most=1").finish()
    assert code == 0, output
    assert len(set(call.last()) - before) == 1
    check_nothing_lost_nothing_twice(call.folder, POINTS, faults=2)


def test_a_cluster_that_is_not_there_is_missed() -> None:
    with socket.create_server((HEAD, 0)) as free:
        address = f"{HEAD}:{free.getsockname()[1]}"
    with pytest.raises(StudyError, match=rf"address has {address}: no Ray cluster answers there\. Start one with `ray"):
        Ray(address=address).employ(list)


def test_what_is_not_a_cluster_is_not_waited_for(start: Start, tmp_path: Path) -> None:
    with socket.create_server((HEAD, 0)) as other:
        address = f"{HEAD}:{other.getsockname()[1]}"
        code, output = start(tmp_path / "study", address, "--patience=2", program="employed.py").finish()
    assert code == 3, output
    assert f"address has {address}: no Ray cluster let us in for 2 s. Start one with `ray start --head`" in output


def test_ray_itself_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SpecError, match=r"a cluster needs it\. Run pip install 'dynops\[ray\]'\."):
        Ray().employ(list)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cpus": 0}, "cpus has 0: must be above 0"),
        ({"gpus": 1.5}, "gpus has 1.5: must be a whole number, or a part of one GPU"),
        ({"gpus": -1}, "gpus has -1: must be a whole number"),
        ({"most": 0}, "most has 0: must be an integer of at least 1"),
        ({"address": "head"}, "address has 'head': must be auto, or HOST:PORT of the cluster's head"),
    ],
)
def test_a_share_that_ray_can_not_give_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Ray(**changes).employ(list)


@pytest.mark.parametrize(
    ("share", "node", "places"),
    [
        (Share(cpus=2, gpus=0), {"CPU": 5.0, "GPU": 1.0}, 2),
        (Share(cpus=1, gpus=1 / 3), {"CPU": 8.0, "GPU": 1.0}, 3),
        (Share(cpus=0.1, gpus=0), {"CPU": 1.0}, 10),
        (Share(cpus=1, gpus=1), {"CPU": 8.0}, 0),
        (Share(cpus=1, gpus=2), {"CPU": 8.0, "GPU": 4.0}, 2),
    ],
)
def test_a_node_holds_as_many_runs_as_it_has_shares(share: Share, node: dict[str, float], places: int) -> None:
    assert share.fits(node) == places
