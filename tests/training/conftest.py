"""A training that takes a fraction of a second."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from dynops import zoo
from dynops.data import Digits
from dynops.nets import ResidualNetwork
from dynops.records import RunRecord
from dynops.training import Recipe, train


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True, kw_only=True)
class Small:
    """A small training; each field can be replaced."""

    network: ResidualNetwork
    data: Digits
    recipe: Recipe
    seed: int

    def train(self, **options: Any) -> RunRecord:
        return train(self.network, self.data, self.recipe, self.seed, accelerator="cpu", **options)


@pytest.fixture
def small() -> Small:
    return Small(
        network=ResidualNetwork(operators=(zoo.involution(3, 8),), depths=(1,), width=8),
        data=Digits(fraction=0.1),
        recipe=Recipe(epochs=3, batch_size=32, learning_rate=1e-2),
        seed=0,
    )
