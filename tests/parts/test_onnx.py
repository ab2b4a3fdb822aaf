"""The family goes to ONNX: exported once for any number of images, it gives in onnxruntime what it gives here."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.onnx import ONNXProgram

from dynops.parts import zoo

# torch's own exporter copies its trees by a name that torch has deprecated
pytestmark = pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning")


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CARRY = _load("test_carry")
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def layer_of(name: str) -> nn.Module:
    """A member as the other tests build it, but sampling at one tap: each is a hundred nodes to export."""
    if "deformable" not in name:
        return CARRY.built(name)
    torch.manual_seed(0)
    arguments, width, size, _ = CARRY.LETTERS[name]
    spec = getattr(zoo, name)(**arguments | {"kernel_size": 1})
    return CARRY.stirred(spec.build(width, size=size)).eval()


def exported(layer: nn.Module, x: Tensor) -> ONNXProgram:
    with torch.no_grad():
        program = torch.onnx.export(layer, (x,), dynamo=True, dynamic_shapes={"x": {0: Dim("b")}}, verbose=False)
    assert program is not None
    return program


def session_of(program: ONNXProgram) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    content = program.model_proto.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def assert_same(session: onnxruntime.InferenceSession, layer: nn.Module, x: Tensor) -> None:
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(found, layer(x).detach().numpy(), **CLOSE)


@pytest.mark.parametrize("name", CARRY.NAMES)
def test_exported_operator_gives_the_same_for_any_number_of_images(name: str) -> None:
    layer = layer_of(name)
    session = session_of(exported(layer, CARRY.features(name)))
    for images in (1, 3):
        assert_same(session, layer, CARRY.features(name, batch=images, seed=images))
    assert session.get_inputs()[0].shape[0] == session.get_outputs()[0].shape[0] == "b"
