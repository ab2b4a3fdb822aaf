"""One thread, numbers that do not depend on which tests ran before, and GPU kernels without a GPU."""

import os

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
