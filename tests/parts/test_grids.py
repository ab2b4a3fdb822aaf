"""Operators on sequences and volumes: the same operators as on images."""

import pytest
import torch

from dynops.errors import SpecError
from dynops.ops import Window
from dynops.parts import Channels, Dynamic, Kernel, Operator, Project, Static, parameters

KERNELS: dict[str, Kernel] = {
    "static": Static(),
    **{context: Dynamic(context=context, reduction=2) for context in ("constant", "global", "pixel", "window")},
    "position": Dynamic(context="position", reduction=2, norm=None),
    "subsampled": Dynamic(context="pixel", downsample="subsample") + Static(),
}


def operator(kernel: Kernel, window: Window) -> Operator:
    return Operator(kernel=kernel, channels=Channels("(g s)", g=2), window=window, value=Project(), bias=True)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("stride", [1, 2])
def test_sequence_is_an_image_of_one_row(name: str, stride: int) -> None:
    sequence = operator(KERNELS[name], Window(5, stride=stride, dims=1)).build(8, size=(9,)).double().eval()
    image = operator(KERNELS[name], Window((1, 5), stride=(1, stride))).build(8, size=(1, 9)).double().eval()
    image.load_state_dict(
        {key: each.reshape(image.state_dict()[key].shape) for key, each in sequence.state_dict().items()}
    )
    x = torch.randn(3, 8, 9, dtype=torch.float64)
    torch.testing.assert_close(sequence(x), image(x[:, :, None])[:, :, 0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["static", "constant", "pixel", "window", "subsampled"])
@pytest.mark.parametrize("stride", [1, 2])
def test_video_with_windows_of_one_frame_is_its_frames(name: str, stride: int) -> None:
    window = Window((1, 3, 3), stride=(1, stride, stride), dims=3)
    video = operator(KERNELS[name], window).build(8).double().eval()
    image = operator(KERNELS[name], Window(3, stride=stride)).build(8).double().eval()
    image.load_state_dict(
        {key: each.reshape(image.state_dict()[key].shape) for key, each in video.state_dict().items()}
    )
    x = torch.randn(2, 8, 4, 6, 7, dtype=torch.float64)
    frames = torch.stack([image(frame) for frame in x.unbind(2)], dim=2)
    torch.testing.assert_close(video(x), frames, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("dims", "size"), [(1, (9,)), (2, (4, 9)), (3, (3, 4, 9))])
def test_description_names_the_axes_of_the_grid(dims: int, size: tuple[int, ...]) -> None:
    spec = operator(KERNELS["pixel"], Window(3, stride=2, dims=dims))
    found = spec.describe(8, size)
    grid = {1: "w=5", 2: "h=2 w=5", 3: "t=2 h=2 w=5"}[dims]
    assert found.kernel == f"b=1 g=2 o=1 i=1 k={3**dims} {grid}"
    assert found.signature == "{b, " + ", ".join(each[0] for each in grid.split()) + "}"
    assert found.output == (8, *(-(-length // 2) for length in size))
    assert found.parameters == parameters(spec.build(8))
    y = spec.build(8)(torch.randn(2, 8, *size))
    assert y.shape == (2, *found.output)


@pytest.mark.parametrize("border", ["mask", "reflect", "replicate", "circular"])
def test_window_context_continues_the_input_as_the_border_says(border: str) -> None:
    layer = operator(KERNELS["window"], Window(3, border=border)).build(8)
    assert layer(torch.randn(2, 8, 5, 6)).shape == (2, 8, 5, 6)


def test_window_context_cannot_shift_its_window() -> None:
    with pytest.raises(
        SpecError, match=r"^context has 'window', border has 'shift': a convolution cannot move its win"
    ):
        operator(KERNELS["window"], Window(3, border="shift")).build(8)
