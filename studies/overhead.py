"""What does Lightning cost? `train` beside a bare loop of the same steps, in one process, in turns.

Both train the same network from the same weights on the same batches, with the same optimiser, schedule and clipping,
and evaluate it after each epoch: one epoch of the one, then the same of the other. Nothing is printed unless their
losses are equal. What is compared is the processor's time for an epoch with its evaluation, as other processes disturb
it less than the clock's, without what is done once: loading, building and the first epoch.

    python -m studies.overhead
"""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import nn

from dynops import zoo
from dynops.cli import command
from dynops.data import Batches, Dataset, Digits
from dynops.errors import DynopsError, SpecError
from dynops.nets import ResidualNetwork
from dynops.records import write_atomically
from dynops.specs import at_least
from dynops.training import Experiment, Recipe
from dynops.training.environment import commit, device_name, versions
from dynops.training.schedule import optimiser_of, share_of_peak
from dynops.training.start import initialise

COMPARED = 3  # epochs whose losses must be equal; later on roundings part them
EVALUATED = 500  # images in a batch of an evaluation, as `train` has


class OverheadError(DynopsError):
    """A ratio that must not be printed, as the loops do not do the same."""


def experiment(width: int, epochs: int) -> Experiment:
    """Return what both loops train: a static network on digits, in steps of 32 images; its width sets their time."""
    return Experiment(
        network=ResidualNetwork(operators=(zoo.depthwise(3),), depths=(3,), width=width),
        data=Digits(),
        recipe=Recipe(epochs=epochs, batch_size=32),
    )


def bare(trained: Experiment) -> Iterator[float]:
    """Train without Lightning; after each epoch with its evaluation, give the loss on training data."""
    dataset, recipe = trained.data.load(0), trained.recipe
    network = trained.network.build(dataset.input_shape, dataset.outputs)
    initialise(network, 0)
    learnt = Batches(dataset=dataset, split="train", batch_size=recipe.batch_size, device="cpu")
    evaluated = Batches(dataset=dataset, split="test", batch_size=EVALUATED, device="cpu")
    weights = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in network.parameters() if parameter.dim() <= 1]
    optimiser = optimiser_of(weights, others, recipe)
    steps = recipe.epochs * len(learnt)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: share_of_peak(step, steps, recipe.warmup))
    for epoch in range(recipe.epochs):
        learnt.epoch = epoch
        loss = _epoch(network, learnt, optimiser, schedule, recipe.clip)
        _evaluate(network, dataset, evaluated)
        yield loss


def measure(trained: Experiment) -> dict[str, list[float]]:
    """Train with both in turns; return the processor's seconds for each epoch but the first.

    Raises:
        OverheadError: they learn differently.
    """
    other = bare(trained)
    seconds: dict[str, list[float]] = {"lightning": [], "bare": []}
    ended = 0.0

    def follow(epoch: Mapping[str, float]) -> None:
        nonlocal ended
        begun = time.process_time()
        seconds["lightning"].append(begun - ended)
        with torch.inference_mode(False), torch.enable_grad():  # Lightning is at the end of an evaluation here
            loss = next(other)
        ended = time.process_time()
        seconds["bare"].append(ended - begun)
        if epoch["epoch"] <= COMPARED and not abs(loss - epoch["train_loss"]) < 1e-3 * loss:
            raise OverheadError(
                f"a bare loop has loss {loss} in epoch {epoch['epoch']:.0f}, `train` has {epoch['train_loss']}: "
                "must be equal, as both do the same."
            )

    trained.run(0, accelerator="cpu", on_epoch=follow)
    return {name: each[1:] for name, each in seconds.items()}


def summary(saved: dict[str, Any]) -> str:
    """Say what `overhead.json` holds in two lines."""
    low, middle, high = quantiles(
        [ours / theirs for ours, theirs in zip(saved["lightning"], saved["bare"], strict=True)], n=4
    )
    step = 1000 * median(saved["bare"]) / saved["steps"]
    return (
        f"A bare loop takes {step:.1f} ms of the processor a step, its share of the evaluation included; `train` takes "
        f"{middle:.3f} [{low:.3f}, {high:.3f}] of that.\n"
        f"Median and quartiles of {len(saved['bare'])} epochs in turns; {saved['device']}; torch "
        f"{saved['versions']['torch']}, lightning {saved['versions']['lightning']}; commit {saved['commit']}."
    )


def main(rounds: int = 60, width: int = 16, threads: int = 1, folder: Path = Path("runs/overhead")) -> None:
    """Time both loops, and print and keep how much longer Lightning's takes.

    Args:
        rounds: epochs of each loop that are timed.
        width: channels of the network.
        threads: threads of torch.
        folder: where `overhead.json` goes.
    """
    at_least("threads", threads, 1)
    if rounds < 4:
        raise SpecError(f"rounds has {rounds}: must be at least 4, for quartiles.")
    torch.set_num_threads(threads)
    trained = experiment(width, rounds + 1)
    seconds = measure(trained)
    saved = {
        "device": device_name(torch.device("cpu")),
        "versions": versions(),
        "commit": commit(),
        "experiment": trained.to_plain(),
        "steps": len(trained.data.load(0).train) // trained.recipe.batch_size,
        **seconds,
    }
    write_atomically(folder / "overhead.json", json.dumps(saved, indent=1) + "\n")
    Console(highlight=False).print(f"{summary(saved)}\nKept: {folder / 'overhead.json'}", soft_wrap=True)


def _epoch(
    network: nn.Module,
    batches: Batches,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    clip: float | None,
) -> float:
    """Train for an epoch; return its mean loss."""
    network.train()
    total = torch.zeros(())
    for x, target in batches:
        loss = F.cross_entropy(network(x), target)
        optimiser.zero_grad()
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimiser.step()
        schedule.step()
        total += loss.detach()
    return float(total) / len(batches)


def _evaluate(network: nn.Module, dataset: Dataset, batches: Batches) -> tuple[float, float]:
    """Return mean loss and accuracy."""
    network.eval()
    loss, right = torch.zeros(()), torch.zeros(())
    with torch.inference_mode():
        for x, target in batches:
            output = network(x)
            loss += F.cross_entropy(output, target, reduction="sum")
            right += (output.argmax(1) == target).sum()
    return float(loss) / len(dataset.test), float(right) / len(dataset.test)


if __name__ == "__main__":
    command(main, "What Lightning costs: `train` beside a bare loop of the same steps.")
