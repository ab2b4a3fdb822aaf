"""Published RedNets: the checkpoints of the authors' repository, as our networks."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from dynops.errors import DataError
from dynops.nets.resnet import DEPTHS, ResNet, rednet
from dynops.parts.checkpoints import OPTIONAL, REQUIRED, load_involution

STEMS = (3, 7)
"""Sides of the window of the stem's involution, for classification and for dense prediction."""
# names of layers, ours and theirs; those of involution `load_involution` has changed already
ENDS = {
    "stem.0.0": "stem.0.conv",
    "stem.0.1": "stem.0.bn",
    "stem.1.0": "stem.1",
    "stem.1.1": "stem.2",
    "stem.2.0": "stem.4.conv",
    "stem.2.1": "stem.4.bn",
    "head.2": "head.fc",
}
BLOCK = {
    "enter.0": "conv1",
    "enter.1": "bn1",
    "operator": "conv2",
    "norm": "bn2",
    "leave": "conv3",
    "leave_norm": "bn3",
    "shortcut.0": "downsample.0",
    "shortcut.1": "downsample.1",
}
INVOLUTION = {ours: theirs for theirs, (ours, _) in (REQUIRED | OPTIONAL).items()}
BESIDE = re.compile(r"(neck|\w+_head)\.")
"""What a detector or a segmenter has beside its backbone."""
SHOWN = 3
"""Names that a message lists of each kind."""


@dataclass(frozen=True, kw_only=True)
class Official:
    """A network with published weights."""

    network: ResNet
    """Its spec."""
    module: nn.Module
    """What it builds, with the weights, in training mode; without `head` where the checkpoint has none, so that it
    gives the features of the last stage."""
    left_out: tuple[str, ...]
    """Parts of a detector or a segmenter that the checkpoint has beside the backbone: `neck`, `rpn_head`."""


def load_official(path: Path | str) -> Official:
    """Load a RedNet of the authors' repository: a classifier, a backbone by itself, or that of a detector or segmenter.

    Only tensors and plain values are read: nothing in the file is run. Depth, stem and number of classes are those of
    the weights. Images are normalised as there: RGB, by the means and deviations of ImageNet.

    Args:
        path: a file that `torch.save` wrote, with or without `state_dict` around the weights.
    Raises:
        DataError: the file is missing, cut off or holds other objects; or its weights are not exactly those of a
            RedNet, in which case the message says which are missing, unknown or of another shape.
    Source: Li et al., Involution, CVPR 2021; the authors' code, d-li14/involution, on mmcls, mmdet and mmseg.
    """
    state = load_involution(path)
    backbone = "backbone."
    left_out: tuple[str, ...] = ()
    if any(name.startswith(backbone) for name in state):
        beside = {name: part[1] for name in state if (part := BESIDE.match(name))}
        left_out = tuple(dict.fromkeys(beside.values()))
        state = {name.removeprefix(backbone): tensor for name, tensor in state.items() if name not in beside}
    network = _network(path, state)
    classes = state.get("head.fc.weight")
    module = network.build((3, 224, 224), 1 if classes is None else len(classes))
    if not any(name.startswith("head.") for name in state):
        del module.head
    names = {_published(name): name for name in module.state_dict()}
    _check(path, state, {theirs: module.state_dict()[ours] for theirs, ours in names.items()}, network.depth)
    module.load_state_dict({names[theirs]: tensor for theirs, tensor in state.items()})
    return Official(network=network, module=module, left_out=left_out)


def _network(path: Path | str, state: Mapping[str, Tensor]) -> ResNet:
    """Find the network by its blocks and by the window of its stem."""
    blocks = {(block[1], block[2]) for name in state if (block := re.match(r"layer(\d+)\.(\d+)\.", name))}
    counts = Counter(layer for layer, _ in blocks)
    found = tuple(counts[layer] for layer in sorted(counts))
    depths: dict[tuple[int, ...], int] = {stages: depth for depth, stages in DEPTHS.items()}
    if found not in depths:
        known = ", ".join(f"{depth} {stages}" for stages, depth in depths.items())
        raise DataError(
            f"{path} has {found or 'no'} blocks in layer1 to layer4: must be a RedNet, whose depths are {known}."
        )
    span = state.get("stem.1.kernel.span.bias")
    sides = {2 * side**2: side for side in STEMS}
    if span is None or len(span) not in sides:
        came = "no involution" if span is None else f"an involution of {len(span)} weights a pixel"
        raise DataError(
            f"{path} has {came} at stem.1: the stem of a RedNet has one of 2 groups, of 3x3 (18) or 7x7 (98)."
        )
    return rednet(depths[found], stem_size=sides[len(span)])


def _published(name: str) -> str:
    """Return the authors' name of one of our weights."""
    prefix, rest, layers = "", name, ENDS
    if block := re.fullmatch(r"stage(\d+)_block(\d+)\.(.+)", name):
        prefix, rest, layers = f"layer{block[1]}.{int(block[2]) - 1}.", block[3], BLOCK
    ours = next(each for each in layers if rest.startswith(f"{each}."))
    return prefix + layers[ours] + rest.removeprefix(ours)


def _check(path: Path | str, state: Mapping[str, Tensor], expected: Mapping[str, Tensor], depth: int) -> None:
    """Raise a DataError unless the weights are those that are expected, in names and shapes."""
    # checkpoints of before torch 0.4.1 do not count batches, and none needs it
    missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in expected]
    differing = [
        f"{_shown(name)} of shape {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    said = {"no": [*map(_shown, missing)], "unknown": [*map(_shown, unknown)], "": differing}
    came = "; ".join(f"{kind} {_listed(names)}".strip() for kind, names in said.items() if names)
    if came:
        raise DataError(f"{path} has {came}: must hold the weights of RedNet-{depth} by the authors' names, no others.")


def _shown(name: str) -> str:
    """Return a name as it stands in the file."""
    layer, dot, entry = name.partition("kernel.")
    return layer + INVOLUTION.get(dot + entry, dot + entry)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
