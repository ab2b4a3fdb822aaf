"""MNIST's idx files, written by the test, zipped or not."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from dynops.data import FashionMnist, Mnist
from dynops.data.mnist import TEST, TRAIN, IdxImages, read_idx
from dynops.errors import DataError

Checksum = Callable[[bytes], str]
AGAIN = r"Remove the file, and get it again with download=True \(`--download true`\)\.$"


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def arrays() -> dict[str, np.ndarray]:
    made = {}
    for (images, labels), number in ((TRAIN, 40), (TEST, 20)):
        made[images] = np.random.default_rng(number).integers(256, size=(number, 28, 28), dtype=np.uint8)
        made[labels] = (np.arange(number) % 10).astype(np.uint8)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the four plain files of MNIST."""
    made = tmp_path / "MNIST" / "raw"
    made.mkdir(parents=True)
    for name, array in arrays().items():
        (made / name).write_bytes(idx(array))
    return made


@pytest.mark.parametrize("cls", [Mnist, FashionMnist])
def test_plain_and_zipped_files_give_the_same_images(
    cls: type[IdxImages], tmp_path: Path, md5: Checksum, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / cls.folder / "raw"
    folder.mkdir(parents=True)
    zipped = {name: gzip.compress(idx(array)) for name, array in arrays().items()}
    monkeypatch.setattr(cls, "checksums", MappingProxyType({name: md5(content) for name, content in zipped.items()}))
    for name, content in zipped.items():
        (folder / f"{name}.gz").write_bytes(content)
    first = cls().load(0, root=tmp_path)
    for name, array in arrays().items():
        (folder / f"{name}.gz").unlink()
        (folder / name).write_bytes(idx(array))
    second = cls().load(0, root=tmp_path)
    for data in (first, second):
        np.testing.assert_array_equal(data.train.inputs[:, 0].numpy(), arrays()[TRAIN[0]])
        np.testing.assert_array_equal(data.test.targets.numpy(), arrays()[TEST[1]])
        assert (data.input_shape, data.outputs, len(data.classes)) == ((1, 28, 28), 10, 10)


def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / TEST[1]).unlink()
    message = (
        rf"^Mnist has no data: folder {re.escape(str(folder))} lacks t10k-labels-idx1-ubyte\. Use download=True "
        r"\(`--download true`\), or put the files of https://ossci-datasets\.s3\.amazonaws\.com/mnist/ there\.$"
    )
    with pytest.raises(DataError, match=message):
        Mnist().load(0, root=tmp_path)


def test_zipped_file_with_another_checksum_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / TEST[1]).unlink()
    (folder / f"{TEST[1]}.gz").write_bytes(b"")
    message = rf"{TEST[1]}\.gz has MD5 d41d8cd98f00b204e9800998ecf8427e: must be ec29112dd5afa0611ce80d1b7f02629c\."
    with pytest.raises(DataError, match=message):
        Mnist().load(0, root=tmp_path)


def test_download_fetches_what_is_missing(
    folder: Path, server: tuple[str, Path], tmp_path: Path, md5: Checksum, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, served = server
    zipped = gzip.compress((folder / TRAIN[0]).read_bytes())
    (served / f"{TRAIN[0]}.gz").write_bytes(zipped)
    (folder / TRAIN[0]).unlink()
    monkeypatch.setattr(Mnist, "url", url)
    monkeypatch.setattr(Mnist, "checksums", MappingProxyType({TRAIN[0]: md5(zipped)}))
    data = Mnist().load(0, root=tmp_path, download=True)
    np.testing.assert_array_equal(data.train.inputs[:, 0].numpy(), arrays()[TRAIN[0]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", rf"^file has first bytes : must be 00000801 and 1 sizes\. {AGAIN}"),
        (b"\0\0\x08\x01\0\0", rf"^file has first bytes 00000801: must be 00000801 and 1 sizes\. {AGAIN}"),
        (b"\0\0\x0d\x01\0\0\0\x01a", rf"^file has first bytes 00000d01: must be 00000801 and 1 sizes\. {AGAIN}"),
        (b"\0\0\x08\x03\0\0\0\x01a", rf"^file has first bytes 00000803: must be 00000801 and 1 sizes\. {AGAIN}"),
        (b"\0\0\x08\x01\0\0\0\x05abc", rf"^file has 11 bytes: must be 13 for the sizes \(5,\)\. {AGAIN}"),
        (b"\0\0\x08\x01\0\0\0\x02abc", rf"^file has 11 bytes: must be 10 for the sizes \(2,\)\. {AGAIN}"),
    ],
)
def test_idx_that_contradicts_itself_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_idx(content, "file", 1)


def test_sizes_whose_product_overflows_are_refused() -> None:
    with pytest.raises(DataError, match=rf"^file has 16 bytes: must be {16 + (2**32 - 1) ** 3} for the sizes"):
        read_idx(b"\0\0\x08\x03" + b"\xff" * 12, "file", 3)


def test_images_of_another_size_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / TEST[0]).write_bytes(idx(np.zeros((20, 8, 8), dtype=np.uint8)))
    message = (
        r"t10k-images-idx3-ubyte has sizes \(20, 8, 8\), t10k-labels-idx1-ubyte has 20 labels: "
        r"must be 28x28 pixels and one label for each image\. Remove both files, and get them again\.$"
    )
    with pytest.raises(DataError, match=message):
        Mnist().load(0, root=tmp_path)


def test_labels_beyond_the_classes_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / TEST[1]).write_bytes(idx(np.full(20, 10, dtype=np.uint8)))
    message = r"t10k-labels-idx1-ubyte has label 10: must be at most 9\. Remove the file, and get it again\.$"
    with pytest.raises(DataError, match=message):
        Mnist().load(0, root=tmp_path)
