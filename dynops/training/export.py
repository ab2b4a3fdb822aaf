"""Networks as files that run without dynops."""

import copy
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim

from dynops.errors import SpecError
from dynops.nets.network import Shape
from dynops.specs import one_of

KINDS = (".onnx", ".pt2")


def export(network: nn.Module, path: Path, input_shape: Shape) -> None:
    """Write a network as it is in evaluation, for any number of images, to a file of the kind that its name tells.

    `.onnx` is for onnxruntime and others: the input `images`, `b c h w`, the output `outputs`. `.pt2` is for
    `torch.export.load`. Neither needs dynops.

    Args:
        network: any; it is left as it is. `fold_all` makes its layers fewer before.
        path: the file.
        input_shape: channels, rows and columns of an image; the file is for this size alone.
    Raises:
        SpecError: the name tells no such kind, or the libraries of ONNX are missing.
    """
    one_of("path suffix", path.suffix, KINDS)
    network = copy.deepcopy(network).cpu().eval()
    images = torch.zeros(2, *input_shape)
    shapes = ({0: Dim("b")},)
    with torch.no_grad():
        if path.suffix == ".pt2":
            torch.export.save(torch.export.export(network, (images,), dynamic_shapes=shapes), path)
            return
        try:
            program = torch.onnx.export(
                network,
                (images,),
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=["images"],
                output_names=["outputs"],
                verbose=False,
            )
        except ModuleNotFoundError as error:
            raise SpecError(f"path has {path}: ONNX needs {error.name}. Install dynops[onnx], or use .pt2.") from error
    assert program is not None
    program.save(path)
