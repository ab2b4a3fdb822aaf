"""All that needs an NVIDIA GPU, one step after the other: its tests, the speed and memory studies, CIFAR-10 in full.

Each step is a program of its own, and leaves what came of it in `studies/results/gpu/STEP.json`. Started again, steps
that are done with the same code are passed over, and the studies among the others go on where they were.

    make gpu
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

from dynops.cli import command
from dynops.data import Cifar10
from dynops.errors import DataError, DynopsError, StudyError
from dynops.records import write_atomically
from dynops.training.environment import accelerators
from studies.measured import ROOT, fingerprint, identity

RESULTS = ROOT / "studies" / "results" / "gpu"
KEPT = {
    "memory": ("memory.json", "memory.md"),
    "speed": ("speed.json", "speed.md", "figures"),
    "which_part": ("records.jsonl", "effects.json", "report.md", "figures"),
}
"""What of each study's folder is a result."""
LINES = 40
"""Last lines of a failed program that are kept."""
SEEDS, EPOCHS = 8, 10

State = Literal["done", "failed", "skipped"]


class GpuError(DynopsError):
    """There is no GPU, or a step failed."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One program."""

    name: str
    arguments: Sequence[str]
    """What follows `python`."""
    obstacle: Callable[[], str] = str
    """Says why the step cannot run; nothing where it can."""
    finish: Callable[[], None] = field(default=lambda: None)
    """Puts its results in their place."""


def main(folder: Path = RESULTS, root: Path = Path("data"), work: Path = Path("runs/gpu")) -> None:
    """Run what is not done; started again, it goes on where it was.

    Args:
        folder: where results go.
        root: folder of the data sets; CIFAR-10 is fetched into it where it is missing.
        work: where the studies run; what they keep to go on lies there.
    """
    check_gpu()
    run_steps(steps(folder.resolve(), root.resolve(), work.resolve()), folder, torch.device("cuda"))


def check_gpu() -> None:
    """Raise a GpuError unless torch sees an NVIDIA GPU."""
    if "cuda" not in accelerators():
        built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        raise GpuError(
            f"machine has {', '.join(accelerators())}, torch {torch.__version__} is built {built}: needs an NVIDIA GPU "
            "that torch sees. Run `make gpu` on a machine with one; here, run `python -m studies.speed` and `python -m "
            "studies.memory` on the CPU."
        )


def steps(folder: Path, root: Path, work: Path) -> tuple[Step, ...]:
    """List the steps, those that are short first."""
    trained = ("--data=cifar10", f"--root={root}", f"--seeds={SEEDS}", f"--epochs={EPOCHS}", "--batch-seeds=true")

    def study(name: str, *arguments: str, obstacle: Callable[[], str] = str) -> Step:
        own = work / f"{name}-{fingerprint()}"  # what other code left is no part of it
        return Step(
            name=name,
            arguments=("-m", f"studies.{name}", "--accelerator=cuda", *arguments, f"--folder={own}"),
            obstacle=obstacle,
            finish=partial(copy_results, name, own, folder / name),
        )

    return (
        Step(name="tests", arguments=("-m", "pytest", "-q", "-m", "gpu", str(ROOT / "tests"))),
        study("memory", "--images=16"),
        study("speed"),
        study("which_part", *trained, obstacle=partial(missing_data, root)),
    )


def run_steps(listed: Sequence[Step], folder: Path, device: torch.device) -> None:
    """Run each step that is not done with the same code, device and versions; then say what came of all.

    Raises:
        GpuError: steps failed; the others ran.
    """
    console = Console(highlight=False)
    begun = time.monotonic()
    states: dict[str, str] = {}
    for step in listed:
        path = folder / f"{step.name}.json"
        wanted = identity(device, {"arguments": list(step.arguments)})
        if _done(path, wanted):
            states[step.name] = "done before"
        else:
            console.print(f"{step.name}: python {' '.join(step.arguments)}", markup=False, soft_wrap=True)
            found = run_step(step)
            write_atomically(path, json.dumps({**wanted, **found}, indent=1) + "\n")
            states[step.name] = f"{found['state']} in {found['seconds']:.0f} s"
            if found["reason"]:
                console.print(found["reason"], style="red", markup=False, soft_wrap=True)
        console.print(f"{step.name}: {states[step.name]}")
    console.print(f"{time.monotonic() - begun:.0f} s in all. Results: {folder}", soft_wrap=True)
    if failed := [name for name, state in states.items() if state.startswith("failed")]:
        raise GpuError(
            f"gpu has failed steps {', '.join(failed)}: must all pass. Their last lines are in {folder}; `make gpu` "
            "goes on with them."
        )


def run_step(step: Step) -> dict[str, Any]:
    """Run a step to its end, and return its state, seconds, and the reason where it is not done."""
    begun = time.monotonic()
    state, reason = _outcome(step)
    return {"state": state, "seconds": round(time.monotonic() - begun, 3), "reason": reason}


def missing_data(root: Path) -> str:
    """Say why CIFAR-10 cannot be had; nothing where it can. It is fetched where it is missing."""
    try:
        Cifar10().load(0, root=root, download=True)
    except DataError as error:
        return str(error)
    return ""


def copy_results(study: str, made: Path, place: Path) -> None:
    """Put what a study made in a folder of results, in the place of earlier ones.

    Raises:
        StudyError: the study left something out.
    """
    place.mkdir(parents=True, exist_ok=True)
    for name in KEPT[study]:
        if not (made / name).exists():
            raise StudyError(f"{made} has no {name}: a study that ends must leave it. Start it again.")
        if (made / name).is_dir():
            shutil.copytree(made / name, place / name, dirs_exist_ok=True)
        else:
            shutil.copy(made / name, place / name)


def _outcome(step: Step) -> tuple[State, str]:
    if obstacle := step.obstacle():
        return "skipped", obstacle
    lines: list[str] = []
    command = [sys.executable, *step.arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None, "it is a pipe"
        for line in process.stdout:
            sys.stdout.write(line)
            lines = [*lines, line][-LINES:]
    if process.returncode:
        return "failed", f"exit status {process.returncode}\n{''.join(lines)}"
    try:
        step.finish()
    except StudyError as error:
        return "failed", str(error)
    return "done", ""


def _done(path: Path, wanted: dict[str, Any]) -> bool:
    try:
        found = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return False
    return found.get("state") == "done" and all(found.get(key) == value for key, value in wanted.items())


if __name__ == "__main__":
    command(main, "All that needs an NVIDIA GPU: its tests, the speed and memory studies, CIFAR-10 in full.")
