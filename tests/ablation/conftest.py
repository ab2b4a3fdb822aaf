"""What the tests of the ablation layer share."""

from collections.abc import Callable

import numpy as np
import pytest

from dynops.records import RunRecord

Table = dict[str, dict[int, float]]


@pytest.fixture(scope="session")
def records_of() -> Callable[..., list[RunRecord]]:
    """Make records, seed by seed, from a table of outcomes by cell name and seed."""

    def make(table: Table, metric: str = "accuracy") -> list[RunRecord]:
        seeds = sorted({seed for outcomes in table.values() for seed in outcomes})
        return [
            RunRecord(levels=levels_of(cell), seed=seed, status="complete", metrics={metric: table[cell][seed]})
            for seed in seeds
            for cell in table
            if seed in table[cell]
        ]

    return make


@pytest.fixture(scope="session")
def planted() -> Callable[..., Table]:
    """Make a 2x2 table with two main effects and their interaction, a shift of each seed and noise in each run."""

    def make(dynamic: float, specific: float, both: float, noise: float = 0.0, n: int = 8, seed: int = 0) -> Table:
        generator = np.random.default_rng(seed)
        shift = generator.normal(0.0, 0.05, n)
        return {
            f"kernel={('constant', 'pixel')[a]},channels={('grouped', 'every')[b]}": {
                index: 0.7
                + ((2 * a - 1) * dynamic + (2 * b - 1) * specific + (2 * a - 1) * (2 * b - 1) * both) / 2
                + shift[index]
                + noise * generator.normal()
                for index in range(n)
            }
            for a in (0, 1)
            for b in (0, 1)
        }

    return make


def levels_of(cell: str) -> dict[str, str]:
    """Read the levels off a cell's name."""
    return dict(pair.split("=", 1) for pair in cell.split(","))
