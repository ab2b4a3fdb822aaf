"""Published weights: what the authors' involution gives, ours gives with its checkpoint; what is broken says so."""

import os
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynops.errors import DataError, ShapeError, SpecError
from dynops.parts import Dynamic, convert_involution, load_involution, zoo

EXACT = {"rtol": 1e-12, "atol": 1e-12}
ENTRIES = (
    "conv1.conv.weight",
    "conv1.bn.weight",
    "conv1.bn.bias",
    "conv1.bn.running_mean",
    "conv1.bn.running_var",
    "conv2.conv.weight",
    "conv2.conv.bias",
)


class ConvModule(nn.Module):
    """A convolution with the names that OpenMMLab gives it."""

    def __init__(self, channels: int, outputs: int, norm: bool, size: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, outputs, size, padding=size // 2, bias=not norm)
        self.bn = nn.BatchNorm2d(outputs) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if self.bn is None else F.relu(self.bn(x))


class Published(nn.Module):
    """Involution by the formula and with the names of the authors' code: groups of channels, taps within a group."""

    def __init__(self, channels: int, size: int = 7, stride: int = 1, share: int = 16, reduction: int = 4) -> None:
        super().__init__()
        self.groups, self.size, self.stride = channels // share, size, stride
        self.conv1 = ConvModule(channels, channels // reduction, norm=True)
        self.conv2 = ConvModule(channels // reduction, size**2 * self.groups, norm=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.conv2(self.conv1(F.avg_pool2d(x, self.stride)))
        b, _, h, w = kernel.shape
        windows = F.unfold(x, self.size, padding=self.size // 2, stride=self.stride)
        kernel = kernel.reshape(b, self.groups, 1, self.size**2, h, w)
        windows = windows.reshape(b, self.groups, -1, self.size**2, h, w)
        return (kernel * windows).sum(3).reshape(b, -1, h, w)


class Bottleneck(nn.Module):
    """A residual block of RedNet: its second convolution is an involution, whose convolutions are first and second."""

    def __init__(self, involution: nn.Module) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(8, 32, 1, bias=False), nn.BatchNorm2d(32)
        self.conv2, self.bn2 = involution, nn.BatchNorm2d(32)
        self.conv3, self.bn3 = nn.Conv2d(32, 8, 1, bias=False), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(x + self.bn3(self.conv3(y)))


class RedNet(nn.Module):
    """A small RedNet, with an involution in its stem and in each block."""

    def __init__(self, involution: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvModule(3, 16, True, 3), involution(16, 3), nn.BatchNorm2d(16), nn.ReLU())
        self.conv1 = ConvModule(16, 8, norm=True)
        self.layer1 = nn.Sequential(*(Bottleneck(involution(32, 7)) for _ in range(2)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer1(self.conv1(self.stem(x)))


def drawn(module: nn.Module) -> nn.Module:
    """Draw the normalisations, which start as the identity."""
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            for tensor in (each.weight, each.running_var):
                nn.init.uniform_(tensor, 0.5, 2.0)
            for tensor in (each.bias, each.running_mean):
                nn.init.uniform_(tensor, -0.5, 0.5)
    return module.double()


def published(**arguments: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(drawn(Published(32, 3, **arguments)).state_dict())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("width", "arguments"),
    [(64, {}), (16, {}), (24, {"share": 4, "reduction": 2}), (24, {"size": 3, "share": 24, "reduction": 3})],
)
def test_converted_layer_gives_what_the_published_one_gives(
    width: int, arguments: dict[str, int], stride: int, training: bool
) -> None:
    torch.manual_seed(0)
    theirs = drawn(Published(width, stride=stride, **arguments)).train(training)
    names = {"size": "kernel_size", "share": "group_channels", "reduction": "reduction"}
    spec = zoo.involution(stride=stride, **{names[name]: value for name, value in arguments.items()})
    ours = spec.build(width).double().train(training)
    ours.load_state_dict(convert_involution(theirs.state_dict()), strict=True)
    x = torch.randn(2, width, 8, 6, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), **EXACT)
    after = convert_involution(theirs.state_dict())
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, after[name], **EXACT)


@pytest.mark.parametrize("training", [False, True])
def test_converted_network_gives_what_the_published_one_gives(training: bool) -> None:
    torch.manual_seed(0)
    theirs = drawn(RedNet(Published)).train(training)
    ours = RedNet(lambda channels, size: zoo.involution(size).build(channels)).double().train(training)
    ours.load_state_dict(convert_involution(theirs.state_dict()), strict=True)
    x = torch.randn(2, 3, 8, 6, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), **EXACT)


def test_only_the_names_of_involutions_change() -> None:
    state = RedNet(Published).state_dict()
    converted = convert_involution(state)
    assert [id(tensor) for tensor in converted.values()] == [id(tensor) for tensor in state.values()]
    changed = {before: after for before, after in zip(state, converted, strict=True) if before != after}
    assert changed["stem.1.conv1.conv.weight"] == "stem.1.kernel.reduce.weight"
    assert changed["layer1.0.conv2.conv1.bn.running_var"] == "layer1.0.conv2.kernel.norm.running_var"
    assert changed["layer1.1.conv2.conv2.conv.bias"] == "layer1.1.conv2.kernel.span.bias"
    assert len(changed) == 3 * 8
    assert {"stem.0.conv.weight", "conv1.conv.weight", "conv1.bn.weight", "layer1.0.conv1.weight"} <= set(converted)


def modules(**named: nn.Module) -> dict[str, Tensor]:
    block = nn.Module()
    for name, each in named.items():
        block.add_module(name, each)
    return {f"layer1.0.{name}": tensor for name, tensor in block.state_dict().items()}


@pytest.mark.parametrize(
    "state",
    [
        modules(conv1=ConvModule(8, 4, norm=True)),
        modules(conv1=ConvModule(8, 4, norm=True), conv2=ConvModule(4, 8, norm=True)),
        modules(conv1=ConvModule(8, 4, norm=False), conv2=ConvModule(4, 8, norm=False)),
        modules(conv1=ConvModule(8, 4, norm=True), conv2=ConvModule(4, 8, norm=False, size=3)),
        modules(conv1=ConvModule(8, 4, norm=True, size=3), conv2=ConvModule(4, 9, norm=False)),
        modules(conv1=nn.Conv2d(8, 4, 1), bn1=nn.BatchNorm2d(4), conv2=nn.Conv2d(4, 9, 1)),
        dict(zoo.involution().build(16).state_dict()),
        {},
    ],
    ids=["stem", "bottleneck", "squeeze and excitation", "3x3 second", "3x3 first", "torchvision", "ours", "empty"],
)
def test_what_only_looks_like_an_involution_is_left_alone(state: dict[str, Tensor]) -> None:
    assert list(convert_involution(state).items()) == list(state.items())


def test_wrappers_and_the_prefix_of_data_parallel_go() -> None:
    state = published()
    expected = convert_involution(state)
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    for wrapped in ({"state_dict": state, "meta": {"epoch": 130}}, parallel, {"state_dict": parallel, "meta": {}}):
        assert convert_involution(wrapped) == expected


def test_module_stays_where_it_is_a_name_among_others() -> None:
    state = {f"module.{name}": tensor for name, tensor in published().items()} | {"head.weight": torch.zeros(2, 2)}
    converted = convert_involution(state)
    assert {"module.kernel.reduce.weight", "head.weight"} <= set(converted)


def test_layer_without_a_count_of_batches_loads_strictly() -> None:
    state = published()
    del state["conv1.bn.num_batches_tracked"]
    zoo.involution(3).build(32).load_state_dict(convert_involution(state), strict=True)


def test_first_convolution_may_have_a_bias() -> None:
    state = published() | {"conv1.conv.bias": torch.randn(8)}
    spec = zoo.involution(3)
    assert isinstance(spec.kernel, Dynamic)
    layer = replace(spec, kernel=replace(spec.kernel, bias=True)).build(32)
    layer.load_state_dict(convert_involution(state), strict=True)
    assert torch.equal(layer.state_dict()["kernel.reduce.bias"], state["conv1.conv.bias"])


@pytest.mark.parametrize("meta", [{"epoch": 130, "config": "model = ..."}, {}])
@pytest.mark.parametrize("zipped", [True, False])
def test_file_is_read_and_converted(zipped: bool, meta: dict[str, Any], tmp_path: Path) -> None:
    state, path = published(), tmp_path / "rednet.pth"
    torch.save({"meta": meta, "state_dict": OrderedDict(state)}, path, _use_new_zipfile_serialization=zipped)
    expected = convert_involution(state)
    for given in (path, str(path)):
        found = load_involution(given)
        assert list(found) == list(expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("missing", ENTRIES)
@pytest.mark.parametrize(("prefix", "name"), [("", "state"), ("layer4.0.conv2.", r"layer4\.0\.conv2")])
def test_incomplete_layer_says_what_it_lacks(prefix: str, name: str, missing: str) -> None:
    state = {f"{prefix}{entry}": tensor for entry, tensor in published().items() if entry != missing}
    rule = rf"^{name} has conv1\.\S+, .*: an involution also needs {re.escape(missing)}\. Take a checkpoint that holds "
    with pytest.raises(SpecError, match=rule):
        convert_involution(state)


@pytest.mark.parametrize(
    ("entry", "shape", "message"),
    [
        ("conv1.bn.weight", (4,), r"a\.conv1\.bn\.weight has hidden=4 in `hidden`: must be 8\."),
        ("conv1.bn.running_var", (8, 1), r"a\.conv1\.bn\.running_var has shape \(8, 1\) with 2 axes: must have 1, "),
        ("conv2.conv.weight", (18, 4, 1, 1), r"a\.conv2\.conv\.weight has hidden=4 in `outputs hidden h w`: must be 8"),
        ("conv2.conv.bias", (9,), r"a\.conv2\.conv\.bias has outputs=9 in `outputs`: must be 18\."),
        ("conv1.conv.bias", (9,), r"a\.conv1\.conv\.bias has hidden=9 in `hidden`: must be 8\."),
        ("conv1.bn.num_batches_tracked", (1,), r"a\.conv1\.bn\.num_batches_tracked has shape \(1,\) with 1 axes"),
    ],
)
def test_entries_that_do_not_fit_together_say_which(entry: str, shape: tuple[int, ...], message: str) -> None:
    state = {f"a.{name}": tensor for name, tensor in (published() | {entry: torch.zeros(shape)}).items()}
    with pytest.raises(ShapeError, match=f"^{message}"):
        convert_involution(state)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([1], r"^state has type list: must map names to tensors\.$"),
        (torch.zeros(2), r"^state has type Tensor: must map names to tensors\.$"),
        ({"model": {}}, r"^state has dict at 'model': must map names to tensors\. Give the part that does\.$"),
        ({1: torch.zeros(2)}, r"^state has Tensor at 1: must map names to tensors\. Give the part that does\.$"),
    ],
)
def test_what_is_no_state_dict_says_so(state: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        convert_involution(state)


class Poison:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_file_is_run(zipped: bool, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "poison.pth"
    state = {"state_dict": published(), "meta": Poison(mark)}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    message = rf"{re.escape(str(path))} has \w+\.mkdir: must hold tensors and plain values only, as nothing else is "
    with pytest.raises(DataError, match=f"^{message}"):
        load_involution(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()


def test_whole_network_in_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.pth"
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(DataError, match=r"pth has torch\.nn\.modules\.linear\.Linear: must hold tensors and plain "):
        load_involution(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9, 0.99])
def test_file_that_was_cut_off_says_so(share: float, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    torch.save(published(), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    message = rf"cut\.pth has {path.stat().st_size} bytes that cannot be read \(\w+\): must be a whole checkpoint that "
    with pytest.raises(DataError, match=message):
        load_involution(path)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html>", b"hello", b"ustar" * 300, b"\x00" * 64, b"PK\x03\x04"])
def test_file_that_is_no_checkpoint_says_so(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "page.pth"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"page\.pth has {len(content)} bytes that cannot be read \(\w+\): must be a "):
        load_involution(path)


def test_missing_file_says_so(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.pth"):
        with pytest.raises(DataError, match=rf"^{path} has no file: must be a checkpoint that torch\.save wrote\.$"):
            load_involution(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], r"a\.pth has weights that do not convert: state has type list: must map names to tensors\.$"),
        ({"epoch": 3}, r"a\.pth has weights that do not convert: state has int at 'epoch': must map names to tensors"),
        ({"conv1.bn.bias": torch.zeros(2), "conv2.conv.bias": torch.zeros(2)}, r"convert: state has conv1\.bn\.bias, "),
    ],
)
def test_file_of_something_else_says_what(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(content, path)
    with pytest.raises(DataError, match=message):
        load_involution(path)
