"""What do RedNet and ResNet cost, counted by one rule, beside what was published?

Nothing is trained and nothing is random: the tables follow from the definitions alone.

    python -m studies.networks
"""

import json
import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from dynops.ablation.reporting.tables import Table
from dynops.cli import command
from dynops.nets import Network, rednet, resnet
from dynops.nets.features import RULE
from dynops.nets.resnet import DEPTHS
from dynops.parts.cost import macs, parameters
from dynops.records import write_atomically

CLASSIFIER, DENSE, RESNET = "RedNet, classification", "RedNet, detection and segmentation", "ResNet"
ORIGINAL = "ResNet, original stem"
NETWORKS: dict[str, Callable[[int], Network]] = {
    CLASSIFIER: rednet,
    DENSE: partial(rednet, stem_size=7),
    RESNET: resnet,
}
"""Functions from a depth to a network; the RedNets have a 3x3 and a 7x7 involution in the stem."""
SHAPE, CLASSES = (3, 224, 224), 1000
PUBLISHED = {26: (9.23, 1.73), 38: (12.39, 2.22), 50: (15.54, 2.71), 101: (25.65, 4.74), 152: (33.99, 6.79)}
"""Millions of parameters and billions of MACs of each RedNet."""
SAVED = {26: (32.8, 29.2), 38: (36.7, 31.3), 50: (39.5, 34.1), 101: (42.6, 40.5), 152: (43.5, 41.4)}
"""Percent of ResNet's parameters and MACs that it saves."""
SOURCE = "Published: the model zoo of the authors' repository, d-li14/involution."
COUNTER = (
    f"{SOURCE} Its MACs are of another counter, which adds biases, normalisations, activations and poolings, so that "
    "ours are fewer."
)
ROUNDED = {26: (13.7, 2.4), 38: (19.6, 3.2), 50: (25.6, 4.1), 101: (44.6, 7.9), 152: (60.2, 11.6)}
"""Counts of ResNet, in the same units, with which the published counts of RedNet give all that it saves."""
STEMS = (
    f"{SOURCE} It does not count the ResNets, nor say which stem they have. Ours has three 3x3 convolutions, the "
    "second where RedNet has its involution, so that the operator alone differs; the original stem is a 7x7 "
    "convolution of stride 2, which costs 0.24 G less. All published savings are those of counts rounded to a "
    "tenth, as 1 - 1.7 / 2.4 = 29.2 %, if the ResNets have "
    f"{', '.join(str(each) for each, _ in ROUNDED.values())} M parameters and "
    f"{', '.join(str(each) for _, each in ROUNDED.values())} G MACs: near those of the original stem."
)
Counts = Mapping[str, Mapping[str, Mapping[str, int]]]


def main(folder: Path = Path("studies/results/networks")) -> None:
    """Count the networks, and print and keep the tables.

    Args:
        folder: where `networks.json` and `networks.md` go.
    """
    counts = count()
    write_atomically(folder / "networks.json", to_json(counts))
    write_atomically(folder / "networks.md", markdown(counts))
    # a file or a pipe has no width that a line could be too long for
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    for made in (cost_table(counts), saving_table(counts)):
        console.print(made.to_terminal(*made.columns))
    console.print(f"Kept in {folder}: networks.json, networks.md.", soft_wrap=True)


def count(depths: Collection[int] = DEPTHS) -> dict[str, dict[str, dict[str, int]]]:
    """Count the parameters and the MACs of each network, by its name and its depth."""
    found = {name: {str(depth): _costs(_built(make(depth))) for depth in depths} for name, make in NETWORKS.items()}
    with torch.device("meta"):
        first = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        original = nn.Sequential(first, nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1))
    ours, theirs = _costs(_built(resnet(26)).get_submodule("stem")), _costs(original)
    found[ORIGINAL] = {
        depth: {kind: cost - ours[kind] + theirs[kind] for kind, cost in costs.items()}
        for depth, costs in found[RESNET].items()
    }
    return found


def _built(network: Network) -> nn.Module:
    with torch.device("meta"):
        return network.build(SHAPE, CLASSES)


def _costs(module: nn.Module) -> dict[str, int]:
    return {"parameters": parameters(module), "macs": macs(module, (1, *SHAPE))}


def cost_table(counts: Counts) -> Table:
    """List parameters and MACs of each network, those of RedNet beside the published ones."""
    rows = []
    for name, depths in counts.items():
        for depth, costs in depths.items():
            given = PUBLISHED[int(depth)] if name in (CLASSIFIER, DENSE) else None
            cells = [name, depth]
            for place, (kind, unit) in enumerate((("parameters", 1e6), ("macs", 1e9))):
                cells.append(f"{costs[kind]:,}")
                cells += ["-", "-"] if given is None else _beside(costs[kind] / unit, given[place])
            rows.append(tuple(cells))
    return Table(
        title="Costs",
        columns=(
            "network",
            "depth",
            "parameters",
            "published, M",
            "parameters, difference",
            "MACs",
            "published, G",
            "MACs, difference",
        ),
        sides="lrrrrrrr",
        rows=tuple(rows),
        note=f"{COUNTER} {RULE}",
    )


def _beside(ours: float, published: float) -> list[str]:
    return [f"{published:.2f}", f"{100 * (ours / published - 1):+.2f} %"]


def saving_table(counts: Counts) -> Table:
    """List the share of ResNet's costs that RedNet saves, beside the published one."""
    rows = []
    for name in (CLASSIFIER, DENSE):
        for depth, costs in counts[name].items():
            cells = [name, depth]
            for place, kind in enumerate(("parameters", "macs")):
                cells.append(f"{SAVED[int(depth)][place]:.1f}")
                for dense in (ORIGINAL, RESNET):
                    saved = 100 * (1 - costs[kind] / counts[dense][depth][kind])
                    cells.append(f"{saved:.1f} ({saved - SAVED[int(depth)][place]:+.1f})")
            rows.append(tuple(cells))
    kinds = ("published", "original stem", "our stem")
    columns = tuple(f"{what}, {kind}" for what in ("parameters", "MACs") for kind in kinds)
    return Table(
        title="Savings",
        columns=("network", "depth", *columns),
        sides="lrrrrrrr",
        rows=tuple(rows),
        note=f"Percent of the ResNet of the same depth; in brackets the difference in points. {STEMS}",
    )


def to_json(counts: Counts) -> str:
    """Write the counts as JSON."""
    return json.dumps({"shape": SHAPE, "classes": CLASSES, "counts": counts}, indent=1) + "\n"


def markdown(counts: Counts) -> str:
    """Write both tables as a page of Markdown."""
    channels, rows, columns = SHAPE
    parts = [
        "# What RedNet and ResNet cost",
        f"Images of {channels} channels and {rows}x{columns} pixels, {CLASSES} classes.",
    ]
    for made in (cost_table(counts), saving_table(counts)):
        parts += [f"## {made.title}", made.to_markdown()]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    command(main, "What RedNet and ResNet cost, beside what was published.")
