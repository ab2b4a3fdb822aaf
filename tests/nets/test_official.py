"""Published RedNets: what the authors' network gives, ours gives with its checkpoint; what is not one says so."""

import os
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dynops.errors import DataError
from dynops.nets import features, load_official, rednet
from dynops.nets.official import _published, _shown

STAGES = {26: (1, 2, 4, 1), 38: (2, 3, 5, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
State = dict[str, Tensor]
EXACT = {"rtol": 1e-9, "atol": 1e-9}


class ConvModule(nn.Module):
    """A convolution with batch norm and ReLU, or bare, by OpenMMLab's names."""

    def __init__(self, channels: int, outputs: int, size: int = 1, stride: int = 1, norm: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, outputs, size, stride, padding=size // 2, bias=not norm)
        self.bn = nn.BatchNorm2d(outputs) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if self.bn is None else F.relu(self.bn(x))


class Involution(nn.Module):
    """The published formula: 16 channels a group, reduction 4, the windows unfolded."""

    def __init__(self, channels: int, size: int, stride: int) -> None:
        super().__init__()
        self.size, self.stride, self.groups = size, stride, channels // 16
        self.conv1 = ConvModule(channels, channels // 4)
        self.conv2 = ConvModule(channels // 4, size**2 * self.groups, norm=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.conv2(self.conv1(x if self.stride == 1 else F.avg_pool2d(x, self.stride, self.stride)))
        b, _, h, w = kernel.shape
        windows = F.unfold(x, self.size, 1, (self.size - 1) // 2, self.stride)
        kernel = kernel.view(b, self.groups, 1, self.size**2, h, w)
        return (kernel * windows.view(b, self.groups, 16, self.size**2, h, w)).sum(3).view(b, -1, h, w)


class Bottleneck(nn.Module):
    def __init__(self, channels: int, inner: int, stride: int) -> None:
        super().__init__()
        width = 4 * inner
        self.conv1, self.bn1 = nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = Involution(inner, 7, stride), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or channels != width:
            shortcut = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Backbone(nn.Module):
    def __init__(self, depth: int, stem: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvModule(3, 32, 3, 2), Involution(32, stem, 1), nn.BatchNorm2d(32), nn.ReLU(), ConvModule(32, 64, 3)
        )
        channels = 64
        for stage, blocks in enumerate(STAGES[depth]):
            layer = nn.Sequential()
            for block in range(blocks):
                layer.append(Bottleneck(channels, 64 << stage, 2 if stage and not block else 1))
                channels = 256 << stage
            self.add_module(f"layer{stage + 1}", layer)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.max_pool2d(self.stem(x), 3, 2, 1)
        found = []
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = self.get_submodule(name)(x)
            found.append(x)
        return found


class Classifier(nn.Module):
    def __init__(self, depth: int, stem: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.backbone = Backbone(depth, stem)
        self.head = nn.Module()
        self.head.fc = nn.Linear(2048, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head.fc(self.backbone(x)[-1].mean((2, 3)))


def drawn(depth: int, stem: int = 3) -> Classifier:
    """Draw a network with its normalisations, whose statistics are those of random images, so that images differ."""
    torch.manual_seed(0)
    module = Classifier(depth, stem)
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            nn.init.uniform_(each.weight, 0.5, 1.5)
            nn.init.uniform_(each.bias, -0.5, 0.5)
            each.momentum = 1.0
    with torch.no_grad():
        module.train()(torch.randn(4, 3, 64, 64))
    return module.eval()


@pytest.fixture(scope="module")
def theirs() -> Classifier:
    return drawn(26)


@pytest.fixture
def state(theirs: Classifier) -> State:
    return dict(theirs.state_dict())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rednet.pth"


@pytest.mark.parametrize("stem", [3, 7])
@pytest.mark.parametrize("depth", STAGES)
def test_all_names_and_shapes_are_those_of_the_published_network(depth: int, stem: int) -> None:
    with torch.device("meta"):
        ours = rednet(depth, stem_size=stem).build((3, 224, 224), 10).state_dict()
        published = Classifier(depth, stem).state_dict()
    names = {_shown(_published(name)): tensor.shape for name, tensor in ours.items()}
    assert names == {name.removeprefix("backbone."): tensor.shape for name, tensor in published.items()}


def test_names_are_those_that_the_published_definition_has(state: State) -> None:
    # written by hand from its modules, so that the network above cannot err with the one that it tests
    assert state["backbone.stem.0.conv.weight"].shape == (32, 3, 3, 3)
    assert state["backbone.stem.1.conv2.conv.bias"].shape == (18,)
    assert state["backbone.stem.4.bn.running_var"].shape == (64,)
    assert state["backbone.layer1.0.conv2.conv1.conv.weight"].shape == (16, 64, 1, 1)
    assert state["backbone.layer3.3.conv2.conv2.conv.weight"].shape == (784, 64, 1, 1)
    assert state["backbone.layer4.0.downsample.0.weight"].shape == (2048, 1024, 1, 1)
    assert state["head.fc.weight"].shape == (10, 2048)


@pytest.mark.parametrize(("depth", "stem"), [(26, 3), (38, 7)])
def test_a_loaded_network_gives_what_the_published_one_gives(depth: int, stem: int, path: Path) -> None:
    published = drawn(depth, stem)
    torch.save({"meta": {"epoch": 130}, "state_dict": published.state_dict()}, path)
    found = load_official(path)
    assert found.network == rednet(depth, stem_size=stem)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = published.double()(x)
        assert (expected[0] - expected[1]).std() > 0.1
        torch.testing.assert_close(found.module.double().eval()(x), expected, **EXACT)


def test_a_loaded_network_gives_the_published_outputs_on_images_of_224_pixels(theirs: Classifier, path: Path) -> None:
    torch.save(theirs.state_dict(), path)
    found = load_official(path)
    x = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(found.module.double().eval()(x), deepcopy(theirs).double()(x), **EXACT)


def test_a_backbone_gives_the_published_features(theirs: Classifier, path: Path) -> None:
    torch.save(theirs.backbone.state_dict(), path)
    found = load_official(path)
    assert [name for name, _ in found.module.named_children()][-1] == "stage4_block1"
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        published = deepcopy(theirs.backbone).double()(x)
        own = features(found.module.double().eval(), x)
        assert torch.equal(found.module(x), own[-1])
    for one, other in zip(own, published, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


def test_a_detector_gives_its_backbone_and_says_what_it_leaves_out(state: State, path: Path) -> None:
    backbone = {name: tensor for name, tensor in state.items() if name.startswith("backbone.")}
    beside = {"neck.lateral_convs.0.conv.weight": torch.zeros(1), "rpn_head.rpn_cls.bias": torch.zeros(1)}
    torch.save({"state_dict": backbone | beside, "meta": {}}, path)
    found = load_official(path)
    assert found.left_out == ("neck", "rpn_head")
    assert torch.equal(found.module.state_dict()["stem.0.0.weight"], state["backbone.stem.0.conv.weight"])


def test_checkpoints_that_count_no_batches_load(state: State, path: Path) -> None:
    torch.save({name: tensor for name, tensor in state.items() if not name.endswith("tracked")}, path)
    assert load_official(path).network == rednet(26)


def refused(path: Path, state: Any, message: str) -> None:
    torch.save(state, path)
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))} has {message}"):
        load_official(path)


def test_missing_and_unknown_names_are_listed_as_they_stand_in_the_file(state: State, path: Path) -> None:
    state["backbone.layer3.0.conv9.weight"] = state.pop("backbone.layer3.0.conv1.weight")
    del state["head.fc.bias"]
    refused(
        path,
        state,
        r"no layer3\.0\.conv1\.weight, head\.fc\.bias; unknown layer3\.0\.conv9\.weight: must hold the weights of "
        r"RedNet-26 by the authors' names, no others\.$",
    )


def test_long_lists_are_cut(state: State, path: Path) -> None:
    left = {name: tensor for name, tensor in state.items() if ".bn3." not in name}
    refused(path, left, r"no layer1\.0\.bn3\.weight, layer1\.0\.bn3\.bias, layer1\.0\.bn3\.running_mean and 29 more: ")


def test_other_shapes_are_refused(state: State, path: Path) -> None:
    state["backbone.layer2.1.conv3.weight"] = torch.zeros(512, 64, 1, 1)
    refused(path, state, r"layer2\.1\.conv3\.weight of shape \(512, 64, 1, 1\), not \(512, 128, 1, 1\): must hold")


def test_an_involution_of_another_size_is_refused_by_its_name_in_the_file(state: State, path: Path) -> None:
    prefix = "backbone.layer1.0.conv2.conv2.conv"
    state |= {f"{prefix}.weight": torch.zeros(36, 16, 1, 1), f"{prefix}.bias": torch.zeros(36)}
    refused(path, state, r"layer1\.0\.conv2\.conv2\.conv\.weight of shape \(36, 16, 1, 1\), not \(196, 16, 1, 1\), ")


def test_other_depths_are_refused(state: State, path: Path) -> None:
    left = {name: tensor for name, tensor in state.items() if "layer3.3" not in name}
    refused(path, left, r"\(1, 2, 3, 1\) blocks in layer1 to layer4: must be a RedNet, whose depths are 26 \(1, 2, 4")
    refused(path, {"fc.weight": torch.zeros(1)}, r"no blocks in layer1 to layer4: must be a RedNet")


def test_other_stems_are_refused(state: State, path: Path) -> None:
    convolution = {name: tensor for name, tensor in state.items() if not name.startswith("backbone.stem.1.")}
    refused(path, convolution, r"no involution at stem\.1: the stem of a RedNet has one of 2 groups, of 3x3 \(18\)")
    prefix = "backbone.stem.1.conv2.conv"
    state |= {f"{prefix}.weight": torch.zeros(50, 8, 1, 1), f"{prefix}.bias": torch.zeros(50)}
    refused(path, state, r"an involution of 50 weights a pixel at stem\.1: ")


class Payload:
    """What pickle runs as it reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_file_with_code_is_refused_and_not_run(tmp_path: Path, path: Path) -> None:
    refused(path, {"state_dict": Payload(tmp_path / "ran")}, r"posix\.mkdir: must hold tensors and plain values only")
    assert not (tmp_path / "ran").exists()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no file: must be a checkpoint that torch\.save wrote\.$"):
        load_official(tmp_path / "none.pth")
