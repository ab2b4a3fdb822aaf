"""One thread, numbers that do not depend on which tests ran before, and GPU kernels without a GPU."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    # Triton then runs its kernels in Python; it reads this when it is imported, with the first sum
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", metavar="FILE", help="add to FILE what was done to studies and what was found then")


@pytest.fixture(autouse=True, scope="session")
def single_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk needs Linux and the right to mount it")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def fill(disk: Path) -> Callable[[], Path]:
    """Fill the disk; the file that does so can be removed."""

    def filled() -> Path:
        with open(disk / "ballast", "wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        return disk / "ballast"

    return filled
