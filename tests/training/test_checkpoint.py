"""Checkpoints: a run that was cut off goes on as if it had not been."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dynops.data import Augmentation
from dynops.errors import StudyError
from dynops.training import checkpoint
from dynops.training.start import initialise


class Cut(Exception):  # noqa: N818  # stands for whatever ends a process
    """Ends a training after an epoch."""


def cut_after(number: int) -> Any:
    def on_epoch(epoch: dict[str, float]) -> None:
        if epoch["epoch"] == number:
            raise Cut

    return on_epoch


@pytest.fixture(autouse=True)
def _checkpoint_after_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)


@pytest.mark.parametrize("epoch", [2, 3])
def test_a_run_that_was_cut_off_ends_as_an_undisturbed_one(small: Any, tmp_path: Path, epoch: int) -> None:
    whole = small.train()
    with pytest.raises(Cut):
        small.train(folder=tmp_path, on_epoch=cut_after(epoch))
    seen: list[float] = []
    resumed = small.train(folder=tmp_path, on_epoch=lambda entry: seen.append(entry["epoch"]))
    assert seen == list(range(epoch, 4))
    assert resumed.history == whole.history
    assert resumed.metrics == whole.metrics


@pytest.mark.parametrize(
    "changes",
    [
        {"ema": 0.8},
        {"mixup": 0.4, "cutmix": 1.0},
        {"accumulate": 4, "channels_last": True},
        {"ema": 0.8, "mixup": 0.4, "accumulate": 2, "warmup": 5, "warmup_from": 0.25, "precision": "bfloat16"},
        {"optimiser": "sgd", "ema": 0.8, "evaluate_every": 1, "label_smoothing": 0.1},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_a_run_by_any_recipe_that_was_cut_off_ends_as_an_undisturbed_one(
    small: Any, tmp_path: Path, changes: dict[str, Any]
) -> None:
    shaken = replace(small.data, augmentation=Augmentation(crop=1, flip=True))
    small = replace(small, recipe=replace(small.recipe, **changes), data=shaken)
    whole = small.train(averaged=("h w",))
    with pytest.raises(Cut):
        small.train(folder=tmp_path, on_epoch=cut_after(2))
    resumed = small.train(folder=tmp_path, averaged=("h w",))
    assert resumed.history == whole.history
    assert resumed.metrics == whole.metrics


def test_a_finished_run_is_not_trained_again(small: Any, tmp_path: Path) -> None:
    whole = small.train(folder=tmp_path)
    again = small.train(folder=tmp_path, on_epoch=cut_after(1))
    assert again.history == whole.history


def test_the_checkpoint_holds_the_network_that_was_measured(small: Any, tmp_path: Path) -> None:
    record = small.train(folder=tmp_path)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    network = small.network.build((1, 8, 8), 10)
    initialise(network, 9)
    prefix = "network."
    network.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    dataset = small.data.load(0)
    with torch.no_grad():
        output = network.eval()(dataset.normalise(dataset.test.inputs))
    assert float((output.argmax(1) == dataset.test.targets).float().mean()) == pytest.approx(record.metrics["accuracy"])


def test_a_torn_checkpoint_starts_the_run_anew(small: Any, tmp_path: Path) -> None:
    whole = small.train(folder=tmp_path)
    path = tmp_path / "last.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.warns(UserWarning, match=r"last\.ckpt cannot be read .*: the run starts anew"):
        assert small.train(folder=tmp_path).history == whole.history


def test_a_checkpoint_for_which_there_is_no_room_does_not_end_the_run(
    small: Any, disk: Path, fill: Callable[[], Path]
) -> None:
    whole = small.train()
    fill()
    with pytest.warns(UserWarning, match=r"last\.ckpt cannot be written \(.*\): the run goes on without it"):
        assert small.train(folder=disk / "run").history == whole.history
    assert not list(disk.rglob("*.ckpt")) + list(disk.rglob("*.tmp"))


def test_a_folder_that_cannot_be_made_does_not_end_the_run(small: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match=r"last\.ckpt cannot be written \(.*\): the run goes on without it"):
        assert small.train(folder=tmp_path / "file" / "run").metrics == small.train().metrics


def test_a_poisoned_checkpoint_runs_nothing(small: Any, tmp_path: Path) -> None:
    class Poison:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "poisoned",))

    (tmp_path / "last.ckpt").write_bytes(pickle.dumps(Poison(), protocol=2))
    with pytest.warns(UserWarning, match="cannot be read"):
        small.train(folder=tmp_path)
    assert not (tmp_path / "poisoned").exists()


def test_a_checkpoint_of_another_run_is_not_taken_up(small: Any, tmp_path: Path) -> None:
    small.train(folder=tmp_path)
    with pytest.raises(StudyError, match="it belongs to another network, data set, recipe or seed"):
        replace(small, seed=1).train(folder=tmp_path)
