"""One thread, and numbers that do not depend on which tests ran before."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def single_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_numbers() -> None:
    torch.manual_seed(0)
