"""Trained networks, from the folder where their training left them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynops.errors import StudyError
from dynops.nets import Network
from dynops.training.checkpoint import UNREADABLE


def restore(folder: Path, seed: int | None = None) -> nn.Module:
    """Return the network that a training left in its folder, on the CPU, in evaluation.

    It has the weights of the last checkpoint; with a moving average, the averaged ones. The file is read as data:
    nothing in it is executed.

    Args:
        folder: what `train` or `train_together` was given.
        seed: which network, where several were trained; may be left out where one was.
    Raises:
        StudyError: no checkpoint there has such a network, or one of them cannot be read.
        SpecError: its network is of a class that was not imported.
    """
    found: dict[int, tuple[Path, dict[str, Any], int]] = {}
    for path in sorted(folder.glob("*.ckpt")):
        content = _read(path)
        found |= {each: (path, content, number) for number, each in enumerate(content["made"]["seeds"])}
    chosen = next(iter(found)) if seed is None and len(found) == 1 else seed
    if chosen not in found:
        raise StudyError(
            f"{folder} has networks of the seeds {sorted(found)}, seed has {seed}: must be one of them. "
            "A training leaves its network there if it is given that folder."
        )
    _, content, number = found[chosen]
    made = content["made"]
    with torch.random.fork_rng(devices=[]):
        network = Network.from_json(made["network"]).build(tuple(made["input_shape"]), made["outputs"])
    network.load_state_dict(_state(content["state_dict"], number))
    return network.eval()


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        content["made"]["seeds"], content["state_dict"]
    except UNREADABLE as error:
        raise StudyError(
            f"{path} cannot be read, or does not say what network it has ({error!r}): must be a checkpoint of this "
            "version. Train again, or remove that file."
        ) from error
    return content


def _state(state: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    """Return one network's weights under its own names: the averaged ones, if there are such."""
    averaged = any(name.startswith("ema.network.") for name in state)
    prefix = "ema.network." if averaged else "network."
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    if all(name.startswith("one.") for name in own):  # networks that were trained together
        return {name.removeprefix("one."): tensor[number] for name, tensor in own.items()}
    return own
