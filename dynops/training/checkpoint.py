"""Checkpoints: a run that was cut off goes on from its last one, at the start of an epoch."""

import os
import pickle
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import lightning as L
import torch

from dynops.errors import StudyError
from dynops.specs import digest

SECONDS = 30.0  # between checkpoints; an epoch that ends earlier leaves none, the last one always does


UNREADABLE = (OSError, RuntimeError, pickle.UnpicklingError, BadZipFile, EOFError, KeyError, TypeError)


class Checkpoint(L.Callback):
    """Writes a file at the ends of epochs, whole or not at all."""

    def __init__(self, path: Path, run: dict[str, Any], made: dict[str, Any]) -> None:
        """Prepare to write.

        Args:
            path: the file; its folder is made where it is missing.
            run: network, data, recipe and seeds as plain data; a checkpoint of another run is not taken up.
            made: what `restore` needs to build the network again, as plain data.
        """
        self.path = path
        self.run = digest(run)
        self.made = made
        self._written = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        last = trainer.current_epoch + 1 == trainer.max_epochs
        due = last or time.monotonic() - self._written > SECONDS
        if trainer.strategy.broadcast(due):  # one clock counts, where there are several processes
            self._save(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["run"] = self.run
        checkpoint["made"] = self.made

    def _save(self, trainer: L.Trainer) -> None:
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")  # a process that was taken for dead may write as well
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            trainer.save_checkpoint(temporary)
            if trainer.is_global_zero:
                temporary.replace(self.path)
        except (OSError, RuntimeError) as error:  # torch says of a full disk that its writer failed
            with suppress(OSError):
                temporary.unlink()
            warnings.warn(f"{self.path} cannot be written ({error}): the run goes on without it.", stacklevel=2)
        self._written = time.monotonic()


def resume_point(checkpoint: Checkpoint) -> Path | None:
    """Return the checkpoint to go on from, None where there is none that can be read.

    Raises:
        StudyError: it belongs to another run.
    """
    if not checkpoint.path.is_file():
        return None
    try:
        found = torch.load(checkpoint.path, map_location="cpu", weights_only=True)
        run, _ = found["run"], found["histories"]
    except UNREADABLE as error:
        warnings.warn(f"{checkpoint.path} cannot be read ({error}): the run starts anew.", stacklevel=2)
        return None
    if run != checkpoint.run:
        raise StudyError(
            f"{checkpoint.path} has run {run}, asked for is {checkpoint.run}: it belongs to another network, data set, "
            "recipe or seed. Use another folder, or remove that file."
        )
    return checkpoint.path
