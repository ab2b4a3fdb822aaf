"""Trained networks come back from their folder as they were evaluated."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from dynops.errors import StudyError
from dynops.records import RunRecord
from dynops.training import restore, train, train_together


def check(small: Any, record: RunRecord, network: torch.nn.Module) -> None:
    """The network is worth what its record says."""
    dataset = small.data.load(record.seed)
    assert not network.training
    with torch.no_grad():
        output = network(dataset.normalise(dataset.test.inputs))
    assert float(F.cross_entropy(output, dataset.test.targets)) == pytest.approx(record.metrics["loss"], rel=1e-4)
    assert float((output.argmax(1) == dataset.test.targets).float().mean()) == pytest.approx(record.metrics["accuracy"])


@pytest.mark.parametrize("changes", [{}, {"ema": 0.8}, {"channels_last": True}], ids=str)
def test_a_trained_network_comes_back(small: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    recipe = replace(small.recipe, **changes)
    record = train(small.network, small.data, recipe, 4, folder=tmp_path, accelerator="cpu")
    drawn = torch.random.get_rng_state()
    check(small, record, restore(tmp_path))
    assert torch.equal(torch.random.get_rng_state(), drawn)
    check(small, record, restore(tmp_path, 4))


@pytest.mark.parametrize("ema", [None, 0.8])
def test_networks_that_were_trained_together_come_back_by_their_seeds(
    small: Any, tmp_path: Path, ema: float | None
) -> None:
    recipe = replace(small.recipe, ema=ema)
    records = train_together(small.network, small.data, recipe, (3, 1), folder=tmp_path, accelerator="cpu")
    for record in records:
        check(small, record, restore(tmp_path, record.seed))
    for seed in (None, 2):
        with pytest.raises(StudyError, match=rf"has networks of the seeds \[1, 3\], seed has {seed}: must be one of"):
            restore(tmp_path, seed)


def test_a_folder_without_a_network_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        StudyError, match=r"has networks of the seeds \[\], seed has None: must be one of them\. A train"
    ):
        restore(tmp_path)


def test_a_checkpoint_that_does_not_say_what_it_holds_is_named(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "last.ckpt")
    with pytest.raises(StudyError, match=r"last\.ckpt cannot be read, or does not say .* \(KeyError\('made'\)\)"):
        restore(tmp_path)


def test_a_poisoned_checkpoint_runs_nothing(tmp_path: Path) -> None:
    class Poison:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "poisoned",))

    (tmp_path / "last.ckpt").write_bytes(pickle.dumps(Poison(), protocol=2))
    with pytest.raises(StudyError, match=r"last\.ckpt cannot be read"):
        restore(tmp_path)
    assert not (tmp_path / "poisoned").exists()
