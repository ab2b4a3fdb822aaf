"""What the stages of a network give, and what its sections are and cost."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dynops.errors import SpecError
from dynops.nets.network import Network, Shape
from dynops.ops.geometry import Size
from dynops.parts.cost import macs, parameters
from dynops.parts.operator import LocalOperator, Operator

RULE = (
    "MACs: one for each product of a weight and a feature in a convolution, a linear layer and a local sum, and of a "
    "query and a key or position. Biases, normalisations, activations, poolings and the algebra of kernels count "
    "nothing."
)
"""The rule of `dynops.parts.cost.macs`, to stand below what is counted by it."""


class Slot(NamedTuple):
    """An operator of a section, at stride 1, where it stands, and how often."""

    operator: Operator
    channels: int
    """Channels of its input."""
    grid: Size
    """Rows and columns of its output."""
    times: int
    """How often the section has it."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """The stem, a stage or the head of a network: what comes out of it, what stands in it, and what it costs."""

    name: str
    """`stem`, `stage1` and so on, `head`."""
    channels: int
    """Channels of what it gives."""
    grid: Size
    """Rows and columns of what it gives; a head's vector has none."""
    stride: int | None
    """Pixels of the image for each pixel of the grid, along one axis; None where there is no grid."""
    blocks: int
    """Blocks of a stage, 1 for all else."""
    slots: tuple[Slot, ...]
    """Its operators, each kind once, in the order in which the input meets them."""
    parameters: int
    """Trainable parameters."""
    macs: int
    """Multiply-accumulates of one image, by the rule of `dynops.parts.cost.macs`."""
    operator_parameters: int
    """Of the parameters, those of the operators."""
    operator_macs: int
    """Of the multiply-accumulates, those of the operators."""


def features(module: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """Run a network up to its head, and return what each stage gives.

    Args:
        module: what a network built that names its children as `Network.build` says; a head may be missing.
        x: images, `b c h w`.
    Returns:
        The output of the last block of each stage, `b c h w`, with the channels and the grid that `sections` says.
    Raises:
        SpecError: the module has no stages.
    """
    found: dict[str, Tensor] = {}
    for name, child in module.named_children():
        if name == "head":
            break
        x = child(x)
        if is_stage(name):
            found[_section(name)] = x
    if not found:
        names = ", ".join(name for name, _ in module.named_children()) or "none"
        raise SpecError(f"module has children {names}: must have stages, named stage1_block1 and so on.")
    return tuple(found.values())


def sections(network: Network, shape: Shape, outputs: int = 1000) -> tuple[Section, ...]:
    """Say what each section of a network gives and costs, without computing anything.

    A network that does not name its children as `Network.build` says has a section for each of them, or, where they do
    not simply follow one another, one for all.

    Args:
        network: any network.
        shape: channels, rows and columns of an image.
        outputs: as in `Network.build`.
    Raises:
        ShapeError: the network cannot be built for the shape.
    """
    found = []
    with torch.device("meta"), torch.no_grad():
        x = torch.empty(1, *shape)
        stride = 1
        for name, section in _sections(network.build(shape, outputs).eval()):
            before = x
            x, inputs = _run(section, before)
            # at an odd size the grid is rounded up, so the ratio of two neighbours is rounded, not that to the image
            grid = tuple(x.shape[2:])
            if grid:
                stride *= round(max(before.shape[2:]) / max(grid))
            found.append(
                Section(
                    name=name,
                    channels=x.shape[1],
                    grid=grid,
                    stride=stride if grid else None,
                    blocks=len(section) if is_stage(name) else 1,
                    slots=_slots(inputs),
                    parameters=parameters(section),
                    macs=macs(section, tuple(before.shape)),
                    operator_parameters=sum(parameters(operator) for operator in inputs),
                    operator_macs=sum(macs(operator, *shapes) for operator, shapes in inputs.items()),
                )
            )
    return tuple(found)


def is_stage(name: str) -> bool:
    """Whether a child or a section of a network is of a stage, by its name."""
    return name.startswith("stage")


def _section(child: str) -> str:
    return child.partition("_block")[0]


def _sections(module: nn.Module) -> Iterable[tuple[str, nn.Sequential]]:
    """Put the children of each section in series."""
    if not isinstance(module, nn.Sequential):
        return [("network", nn.Sequential(module))]
    found: dict[str, nn.Sequential] = {}
    for name, child in module.named_children():
        found.setdefault(_section(name), nn.Sequential()).append(child)
    return found.items()


def _run(section: nn.Module, x: Tensor) -> tuple[Tensor, dict[LocalOperator, list[tuple[int, ...]]]]:
    """Run a section; return what it gives, and the shapes of the inputs of its operators."""
    shapes: dict[LocalOperator, list[tuple[int, ...]]] = {}

    def note(module: LocalOperator, inputs: tuple[Tensor, ...]) -> None:
        shapes[module] = [tuple(each.shape) for each in inputs]

    operators = [each for each in section.modules() if isinstance(each, LocalOperator)]
    hooks = [each.register_forward_pre_hook(note) for each in operators]
    y = section(x)
    for hook in hooks:
        hook.remove()
    return y, shapes


def _slots(inputs: Mapping[LocalOperator, list[tuple[int, ...]]]) -> tuple[Slot, ...]:
    counts: dict[tuple[Operator, int, Size], int] = {}
    for each, (shape, *_) in inputs.items():
        kind = each.spec.strided(1), each.channels, each.spec.output_size(shape[2:])
        counts[kind] = counts.get(kind, 0) + 1
    return tuple(Slot(*kind, count) for kind, count in counts.items())
