"""What a record says about the machine and the code."""

import platform
import resource
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from dynops.specs import one_of

PACKAGES = ("dynops", "torch", "lightning", "optuna", "einops", "numpy")


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that do the work."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def commit() -> str:
    """Return the commit of the code that runs, with `+` if files differ from it; empty outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        _git(here, "ls-files", "--error-unmatch", Path(__file__).name)  # an installed copy is no checkout of dynops
        head = _git(here, "rev-parse", "--short=12", "HEAD")
        changed = _git(here, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+" if changed else "")


def accelerators() -> tuple[str, ...]:
    """Return the accelerators that this machine has, the best one first: `cuda`, `mps`, `cpu`."""
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return tuple(name for name, there in found.items() if there)


def choose_accelerator(name: str) -> str:
    """Return the accelerator of a name, the machine's best one for `auto`.

    Raises:
        SpecError: this machine has none of that name.
    """
    one_of("accelerator", name, ("auto", *accelerators()))
    return accelerators()[0] if name == "auto" else name


def device_name(device: torch.device) -> str:
    """Return the name of a device, with the number of threads for a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"{_processor()}, {torch.get_num_threads()} threads"
    return device.type


def peak_memory(device: torch.device) -> int:
    """Return the peak in bytes: of the allocator on a GPU, of the process's resident set elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@cache
def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()
