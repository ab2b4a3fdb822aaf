"""Images in files: every kind becomes RGB, and what is broken is named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dynops.data import ImageFiles, ImageFolder, ResizedCrop
from dynops.data.image_files import read_image
from dynops.errors import DataError


@pytest.fixture(scope="session")
def files(image_root: Path) -> ImageFiles:
    inputs = ImageFolder(folder="tiny", size=16).load(0, root=image_root).train.inputs
    assert isinstance(inputs, ImageFiles)
    return inputs


def test_files_stand_for_a_tensor(files: ImageFiles) -> None:
    pixels = files.to("cpu")
    assert files.shape == pixels.shape == (36, 3, 16, 16)
    assert pixels.dtype == torch.uint8
    assert torch.equal(files[3:5].to("cpu"), pixels[3:5])
    index = torch.tensor([30, 2, 2])
    assert torch.equal(files[index].to("cpu"), pixels[index])


def test_a_part_depends_on_seed_epoch_and_name_alone(files: ImageFiles) -> None:
    crop = ResizedCrop()
    part = files.cropped(20, crop, 1, 2)
    assert torch.equal(files[torch.tensor([7, 20])].cropped(1, crop, 1, 2), part)
    assert not torch.equal(files.cropped(20, crop, 0, 2), part)
    assert not torch.equal(files.cropped(20, crop, 1, 3), part)


def test_images_of_one_size_have_parts_of_their_own(tmp_path: Path) -> None:
    gradient = Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64).astype(np.uint8)).convert("RGB")
    for name in ("a.png", "b.png"):
        gradient.save(tmp_path / name)
    files = ImageFiles(folder=tmp_path, names=np.array([b"a.png", b"b.png"]), size=16)
    assert torch.equal(files.central(0), files.central(1))
    assert not torch.equal(files.cropped(0, ResizedCrop(), 0, 0), files.cropped(1, ResizedCrop(), 0, 0))


def of_palette(**info: bytes) -> Image.Image:
    image = Image.new("P", (9, 7))
    image.putpalette([10, 200, 30])
    image.info |= info
    return image


@pytest.mark.parametrize(
    ("image", "suffix", "expected"),
    [
        (Image.new("RGB", (9, 7), (10, 200, 30)), "png", (10, 200, 30)),
        (Image.new("RGBA", (9, 7), (10, 200, 30, 100)), "png", (10, 200, 30)),
        (of_palette(), "png", (10, 200, 30)),
        (of_palette(transparency=bytes([100])), "png", (10, 200, 30)),
        (Image.new("L", (9, 7), 77), "png", (77, 77, 77)),
        (Image.new("L", (9, 7), 77), "jpeg", (77, 77, 77)),
        (Image.new("LA", (9, 7), (77, 5)), "png", (77, 77, 77)),
        (Image.new("1", (9, 7), 1), "png", (255, 255, 255)),
        (Image.fromarray(np.full((7, 9), 77 * 256 + 200, np.uint16)), "png", (77, 77, 77)),
        (Image.new("CMYK", (9, 7), (255, 0, 255, 0)), "jpeg", (0, 255, 0)),
    ],
)
def test_every_kind_of_image_becomes_rgb(
    image: Image.Image, suffix: str, expected: tuple[int, int, int], tmp_path: Path
) -> None:
    path = tmp_path / f"a.{suffix}"
    image.save(path)
    read = read_image(path)
    assert (read.mode, read.size) == ("RGB", (9, 7))
    assert np.abs(np.asarray(read).astype(int) - expected).max() <= (2 if suffix == "jpeg" else 0)


def test_a_png_that_is_called_jpeg_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (9, 7), (1, 2, 3)).save(tmp_path / "a.JPEG", format="PNG")
    assert read_image(tmp_path / "a.JPEG").getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize("kind", ["cut", "text", "gif", "absent"])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_broken_image_is_named(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    if kind == "cut":
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:1000])
    elif kind == "text":
        path.write_text("<html>not found</html>")
    elif kind == "gif":
        Image.new("L", (9, 7)).save(path, format="GIF")
    message = (
        rf"/a\.{suffix} has content that cannot be decoded \(.*\): must be a whole image, JPEG or PNG\. "
        r"Get the file again from its source, or remove it\.$"
    )
    with pytest.raises(DataError, match=message):
        read_image(path)
