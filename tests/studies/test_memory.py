"""The networks of the memory study are the published ones, and its peaks are those of the images."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dynops import zoo
from dynops.errors import SpecError
from dynops.nets import ResNet, rednet, resnet
from dynops.parts.cost import parameters
from studies import measured, memory
from studies.unfold import Unfold

PUBLISHED = {26: 9_233_166, 38: 12_386_986, 50: 15_540_806}
SAVED = {26: 0.328, 38: 0.367, 50: 0.395}
"""Share of ResNet's parameters that the paper says RedNet saves; its ResNet has a stem of its own."""


@pytest.mark.parametrize("number", PUBLISHED)
def test_networks_have_the_published_parameters(number: int) -> None:
    unfold = ResNet(depth=number, operators=(Unfold(kernel_size=7),), stem=Unfold(kernel_size=3))
    with torch.device("meta"):
        own, other, dense = (
            parameters(network.build((3, 224, 224), 1000)) for network in (rednet(number), unfold, resnet(number))
        )
    assert own == other == PUBLISHED[number]
    assert 1 - own / dense == pytest.approx(SAVED[number], abs=5e-3)


@pytest.mark.parametrize("stride", [1, 2])
def test_involution_by_unfold_is_involution(stride: int) -> None:
    layers = zoo.involution().strided(stride), Unfold(kernel_size=7, stride=stride)
    own, other = (layer.build(32).double() for layer in layers)
    other.load_state_dict(dict(zip(other.state_dict(), own.state_dict().values(), strict=True)))
    x = torch.randn(2, 32, 12, 12, dtype=torch.float64)
    torch.testing.assert_close(own(x), other(x))


def test_the_study_measures_each_network_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []

    def cut_off(slot: str, *rest: Any) -> dict[str, Any]:
        counted.append(slot)
        if len(counted) == 2:
            raise KeyboardInterrupt
        grown = {"involution": 3 << 20, "involution by unfold": 6 << 20, "dense 3x3": 2 << 20}[slot]
        return {"size": 32, "slot": slot, "parameters": 10**6, "peaks": {"4": 10**6, "8": 10**6 + 4 * grown}}

    monkeypatch.setattr(memory, "measure", cut_off)
    with pytest.raises(KeyboardInterrupt):
        memory.main(sizes=(32,), accelerator="cpu", threads=1, folder=tmp_path)
    memory.main(sizes=(32,), accelerator="cpu", threads=1, folder=tmp_path)
    assert counted == ["involution", "involution by unfold", "involution by unfold", "dense 3x3"]
    saved = json.loads((tmp_path / "memory.json").read_text())
    assert saved["device"]
    text = (tmp_path / "memory.md").read_text()
    assert text == memory.markdown(saved)
    assert "| 32x32 | RedNet-26, dynops | 1.00 M | 3.0 | 0.50 | 1.50 |" in text


def test_an_image_takes_no_memory_for_its_windows() -> None:
    found = memory.measure("involution", 64, 4, torch.device("cpu"), 1)
    assert found["parameters"] == PUBLISHED[26]
    # measured: 4.4 MiB, and 16.7 with unfold
    assert 2 << 20 < memory.per_image(found) < 8 << 20


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_an_image_takes_less_memory_on_a_gpu_than_with_unfold() -> None:
    slots = ("involution", "involution by unfold")
    own, other = (memory.per_image(memory.measure(slot, 64, 16, torch.device("cuda"), 1)) for slot in slots)
    assert 0 < 2 * own < other


def test_settings_that_do_not_fit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match=r"^sizes has 50: must be a multiple of 32, which the four stages divide\.$"):
        memory.main(sizes=(64, 50), folder=tmp_path)
    with pytest.raises(SpecError, match=r"^images has 0: must be an integer of at least 1\.$"):
        memory.main(images=0, folder=tmp_path)
    monkeypatch.setattr(memory, "PROCESS", tmp_path)
    with pytest.raises(
        SpecError, match=r"^accelerator has 'cpu': peaks of a CPU are measured on Linux only\. Use 'cuda'"
    ):
        memory.main(accelerator="cpu", folder=tmp_path)


def test_identity_says_where_numbers_come_from() -> None:
    found = measured.identity(torch.device("cpu"), {"images": 4})
    assert found["device"].endswith("threads")
    assert found["versions"]["torch"] == torch.__version__
    assert found["code"] == measured.fingerprint()
    assert found["settings"] == {"images": 4}
