"""How much memory does an image take in training? RedNet-26 by dynops, by the published unfold formula, and ResNet-26.

The same network with three things in its slots: involution as dynops computes it, involution as the published code
does, and the dense 3x3 convolution of a ResNet. A training step is forward and backward of the cross-entropy. Its peak
is measured with two numbers of images, and the difference counts: what does not grow with the images, weights and their
gradients, cancels.

    python -m studies.memory
    python -m studies.memory --accelerator cuda --images 32
"""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import nn

from dynops.ablation.reporting.tables import Table
from dynops.cli import command
from dynops.errors import SpecError
from dynops.nets import ResNet, rednet, resnet
from dynops.parts.cost import parameters
from dynops.records import write_atomically
from dynops.specs import at_least
from dynops.training.environment import accelerators, choose_accelerator
from studies.measured import identity, open_measured
from studies.speed.memory import PROCESS, apart, peak
from studies.unfold import Unfold

NAMES = {"involution": "RedNet-26, dynops", "involution by unfold": "RedNet-26, unfold", "dense 3x3": "ResNet-26"}
NETWORKS = {
    "involution": rednet(26),
    "involution by unfold": ResNet(depth=26, operators=(Unfold(kernel_size=7),), stem=Unfold(kernel_size=3)),
    "dense 3x3": resnet(26),
}
CLASSES = 1000
MIB = 1 << 20
SMALLEST = 32
"""Pixels a side that all stages divide."""


def main(
    sizes: tuple[int, ...] = (64, 224),
    images: int = 4,
    accelerator: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int = 2,
    folder: Path = Path("runs/memory"),
) -> None:
    """Measure the networks, and print and keep the table; started again, it goes on where it was.

    Args:
        sizes: pixels a side of the images.
        images: images of the smaller batch; the larger one has twice as many.
        accelerator: `cpu` or `cuda`; `auto` takes a GPU where there is one.
        threads: threads of torch on a CPU.
        folder: where `memory.json` and `memory.md` go.
    """
    device = check_settings(sizes, images, accelerator, threads)
    # a file or a pipe has no width that a line could be too long for
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    torch.set_num_threads(threads)
    settings = {"accelerator": device.type, "images": images}
    measured = open_measured(folder / "memory.json", identity(device, settings))
    if measured.message:
        console.print(measured.message, soft_wrap=True)
    for size in sizes:
        for slot in NETWORKS:
            console.print(f"{NAMES[slot]} at {size} pixels ...")
            measured.get(f"{size} {slot}", partial(measure, slot, size, images, device, threads))
    made = table(measured.plain())
    write_atomically(folder / "memory.md", markdown(measured.plain()))
    console.print(made.to_terminal(*made.columns))
    console.print(f"{made.note}\nKept in {folder}: memory.json, memory.md.", soft_wrap=True)


def check_settings(sizes: tuple[int, ...], images: int, accelerator: str, threads: int) -> torch.device:
    """Return the device of settings that fit this machine.

    Raises:
        SpecError: they do not.
    """
    at_least("threads", threads, 1)
    at_least("images", images, 1)
    for size in sizes:
        if size < SMALLEST or size % SMALLEST:
            raise SpecError(f"sizes has {size}: must be a multiple of {SMALLEST}, which the four stages divide.")
    if accelerator == "auto":
        accelerator = "cuda" if "cuda" in accelerators() else "cpu"
    device = torch.device(choose_accelerator(accelerator))
    if device.type == "cpu" and not (PROCESS / "clear_refs").exists():
        raise SpecError("accelerator has 'cpu': peaks of a CPU are measured on Linux only. Use 'cuda', or Linux.")
    return device


def measure(slot: str, size: int, images: int, device: torch.device, threads: int) -> dict[str, Any]:
    """Measure a network's peaks, on a CPU in a process of its own."""
    run = partial(peaks, slot, size, images, device.type, threads)
    return run() if device.type == "cuda" else apart(run)


def peaks(slot: str, size: int, images: int, device: str, threads: int) -> dict[str, Any]:
    """Return a network's parameters, and the peak bytes of a training step by the number of images."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net = NETWORKS[slot].build((3, size, size), CLASSES).to(device).train()
    found = {}
    for number in (images, 2 * images):
        step = partial(train_once, net, *draw(number, size, device))
        step()
        found[str(number)] = peak(step, torch.device(device))
    return {"size": size, "slot": slot, "parameters": parameters(net), "peaks": found}


def train_once(net: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> None:
    """Compute the gradients of all parameters, and drop them."""
    F.cross_entropy(net(x), labels).backward()
    net.zero_grad(set_to_none=True)


def draw(images: int, size: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw images, `b c h w`, and labels, `b`."""
    return torch.randn(images, 3, size, size, device=device), torch.zeros(images, dtype=torch.long, device=device)


def per_image(point: Mapping[str, Any]) -> float:
    """Return the bytes by which a peak grows with each image."""
    (few, small), (many, large) = sorted((int(number), found) for number, found in point["peaks"].items())
    return (large - small) / (many - few)


def table(saved: Mapping[str, Any]) -> Table:
    """List the peak memory for each image, and its ratios to the same network by unfold and to ResNet."""
    points = {(point["size"], point["slot"]): point for point in saved["points"].values()}
    rows = []
    for (size, slot), point in points.items():
        cells = []
        for other in ("involution by unfold", "dense 3x3"):
            base = points.get((size, other))
            cells.append(f"{per_image(point) / per_image(base):.2f}" if base else "-")
        shown = f"{point['parameters'] / 1e6:.2f} M", f"{per_image(point) / MIB:.1f}"
        rows.append((f"{size}x{size}", NAMES[slot], *shown, *cells))
    few = saved["settings"]["images"]
    return Table(
        title="Peak memory of a training step, for each image",
        columns=("image", "network", "parameters", "MiB an image", "/ RedNet-26, unfold", "/ ResNet-26"),
        sides="llrrrr",
        rows=tuple(rows),
        note=f"The peak with {2 * few} images less that with {few}, for each image; float32.",
    )


def markdown(saved: Mapping[str, Any]) -> str:
    """Write the table as a page of Markdown."""
    made = table(saved)
    head = f"{saved['device']}; commit {saved['commit'] or '-'}; torch {saved['versions']['torch']}."
    return f"# {made.title}\n\n{head}\n\n{made.to_markdown()}\n"


if __name__ == "__main__":
    command(main, "How much memory an image takes in training, with dynops, with unfold and in a ResNet.")
