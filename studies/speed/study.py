"""The study of speed: what it measures, in which order, and what it leaves behind."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

from dynops.errors import SpecError
from dynops.records import write_atomically
from dynops.specs import at_least
from dynops.training.environment import accelerators, choose_accelerator
from studies.measured import ROOT, identity, open_measured
from studies.speed import memory
from studies.speed.page import write_page
from studies.speed.peers import BUILDERS, SpeedError, calls, check, peers
from studies.speed.place import DTYPES, SHAPES, Place
from studies.speed.plots import figures
from studies.speed.roofline import roofline
from studies.speed.sweeps import KINDS, PEERS, Point, points
from studies.speed.tables import markdown, tables
from studies.speed.timing import in_turns

TESTS = ROOT / "tests" / "ops"
SHARE = 3
"""Rounds at a shape for each round at a point of a sweep."""
FEWEST = 4
"""Rounds that have quartiles."""


def main(
    rounds: int = 30,
    sweeps: bool = True,
    accelerator: Literal["auto", "cpu", "cuda"] = "auto",
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32",
    threads: int = 2,
    folder: Path = Path("runs/speed"),
) -> None:
    """Test the operators, time and weigh them and their peers, and print and keep the tables.

    Started again with the same settings, it goes on where it was.

    Args:
        rounds: times that each peer runs at each shape; at a point of a sweep it is a third of that.
        sweeps: whether to sweep size, taps, channels, groups, images and dtype as well.
        accelerator: `cpu` or `cuda`; `auto` takes a GPU where there is one.
        dtype: of features and kernels; the sweep over dtypes takes its own.
        threads: threads of torch on a CPU.
        folder: where tables, figures and the TensorBoard page go.
    """
    device = check_settings(rounds, accelerator, dtype, threads)
    # a file or a pipe has no width that a line could be too long for
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    console.print("Testing the operators ...")
    check_operators()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True  # convolutions at their fastest
    settings = {"accelerator": device.type, "rounds": rounds, "dtype": dtype}
    measured = open_measured(folder / "speed.json", identity(device, settings))
    if measured.message:
        console.print(measured.message, soft_wrap=True)
    for name, measure in plan(device, DTYPES[dtype], rounds, threads, sweeps=sweeps):
        if name not in measured.points:
            console.print(f"{name} ...")
        measured.get(name, measure)
    keep(measured.plain(), folder)
    for table in tables(measured.plain()):
        console.print(table.to_terminal(*table.columns))
        if table.note:
            console.print(table.note, soft_wrap=True)
    console.print(f"Kept in {folder}: speed.json, speed.md, figures.", soft_wrap=True)
    console.print(f"In TensorBoard: tensorboard --logdir {folder / 'tensorboard'}", soft_wrap=True)


def check_settings(rounds: int, accelerator: str, dtype: str, threads: int) -> torch.device:
    """Return the device of settings that fit this machine.

    Raises:
        SpecError: they do not.
    """
    at_least("threads", threads, 1)
    if rounds < FEWEST:
        raise SpecError(f"rounds has {rounds}: must be at least {FEWEST}, for quartiles.")
    if accelerator == "auto":
        accelerator = "cuda" if "cuda" in accelerators() else "cpu"
    kind = choose_accelerator(accelerator)
    if dtype not in KINDS[kind]:
        raise SpecError(f"dtype has {dtype!r}: must be one of {', '.join(map(repr, KINDS[kind]))} on {kind!r}.")
    return torch.device(kind)


def check_operators() -> None:
    """Raise a SpeedError unless the tests of the operators pass."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", str(TESTS)]
    tested = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if tested.returncode:
        raise SpeedError(f"tests has failures, so no speed is measured:\n{tested.stdout[-2000:]}")


def plan(
    device: torch.device, dtype: torch.dtype, rounds: int, threads: int, *, sweeps: bool
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Go through what is measured, by names: the machine, all peers at all shapes, and the sweeps."""
    names = tuple(BUILDERS)
    yield "roofline", lambda: roofline(device, dtype)._asdict()
    for shape in SHAPES:
        place = Place(shape, device, dtype)
        yield f"shape {shape}", partial(at_place, place, rounds, names)
        yield f"memory {shape}", partial(memory.measure, place, names, threads)
    for point in points(device, dtype) if sweeps else ():
        yield str(point), partial(at_point, point, max(FEWEST, rounds // SHARE))


def at_place(place: Place, rounds: int, names: tuple[str, ...]) -> dict[str, Any]:
    """Time peers at a place: the seconds of each round by direction, or why there are none."""
    found = peers(place, names)
    check(found, place)
    each_way = {name: calls(name, peer) for name, peer in found.items()}
    runs = {
        (name, direction): call
        for name, by_direction in each_way.items()
        for direction, call in by_direction.items()
        if not isinstance(call, str)
    }
    times = in_turns(runs, rounds, place.device, str(place.shape))
    plain = {
        name: {
            "same": not isinstance(peer, str) and peer.same,
            **{direction: times.get((name, direction), call) for direction, call in each_way[name].items()},
        }
        for name, peer in found.items()
    }
    return {"shape": list(place.shape), "dtype": str(place.dtype).removeprefix("torch."), "peers": plain}


def at_point(point: Point, rounds: int) -> dict[str, Any]:
    """Time the peers of a sweep at one of its points."""
    return {"axis": point.axis, "value": point.value, **at_place(point.place, rounds, PEERS)}


def keep(saved: dict[str, Any], folder: Path) -> None:
    """Write tables, figures and the TensorBoard page of what was measured."""
    write_atomically(folder / "speed.md", markdown(saved))
    drawn = figures(saved)
    (folder / "figures").mkdir(exist_ok=True)
    for name, figure in drawn.items():
        figure.savefig(folder / "figures" / f"{name}.png")
    write_page(folder / "tensorboard", saved, drawn)
