"""Trained networks outside of dynops: in onnxruntime, and from torch's own file where dynops cannot be imported."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from dynops import zoo
from dynops.errors import SpecError
from dynops.nets import ResidualNetwork
from dynops.training import export

# torch's own exporter copies its trees by a name that torch has deprecated
pytestmark = pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning")
SHAPE = (3, 12, 12)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A network with involution whose statistics and scales are not those of the start."""
    torch.manual_seed(0)
    built = ResidualNetwork(operators=(zoo.involution(3, 8),), depths=(1,), width=8).build(SHAPE, 5)
    for name, parameter in built.named_parameters():
        if name.endswith("leave_norm.weight"):
            nn.init.ones_(parameter)  # else the blocks would be their shortcuts
    built(torch.randn(16, *SHAPE))
    return built


def test_onnxruntime_gives_the_same_for_any_number_of_images(network: nn.Module, tmp_path: Path) -> None:
    export(network, tmp_path / "network.onnx", SHAPE)
    assert network.training
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", options, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs() + session.get_outputs()] == ["images", "outputs"]
    network.eval()
    for number in (1, 5):
        images = torch.randn(number, *SHAPE)
        (found,) = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(found, network(images).numpy(), rtol=1e-4, atol=1e-5)
    network.train()


def test_torch_runs_the_file_without_dynops(network: nn.Module, tmp_path: Path) -> None:
    export(network, tmp_path / "network.pt2", SHAPE)
    images = torch.randn(3, *SHAPE)
    torch.save(images, tmp_path / "images.pt")
    code = (
        "import sys, torch; sys.modules['dynops'] = None; torch.set_num_threads(1)\n"
        f"network = torch.export.load({str(tmp_path / 'network.pt2')!r}).module()\n"
        f"images = torch.load({str(tmp_path / 'images.pt')!r}, weights_only=True)\n"
        f"torch.save(network(images).detach(), {str(tmp_path / 'outputs.pt')!r})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    with torch.no_grad():
        expected = network.eval()(images)
    network.train()
    torch.testing.assert_close(torch.load(tmp_path / "outputs.pt", weights_only=True), expected)


def test_a_file_of_another_kind_is_refused(network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"^path suffix has '\.tflite': must be one of '\.onnx', '\.pt2'\.$"):
        export(network, tmp_path / "network.tflite", SHAPE)


def test_missing_libraries_are_named(network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise ModuleNotFoundError("No module named 'onnxscript'", name="onnxscript")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(SpecError, match=r"network\.onnx: ONNX needs onnxscript\. Install dynops\[onnx\], or use \.pt2"):
        export(network, tmp_path / "network.onnx", SHAPE)
