"""CIFAR's files: missing, corrupt, downloaded; CIFAR-100's layout is written by the test."""

import io
import re
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from dynops.data import Cifar10, Cifar100
from dynops.errors import DataError

Writer = Callable[[Any], bytes]
Checksum = Callable[[bytes], str]
FOLDER = "cifar-100-python"


@pytest.fixture
def contents(old_pickle: Writer, md5: Checksum, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A small CIFAR-100, 30 training and 6 test images of 3 fine classes, whose checksums replace the true ones."""

    def part(number: int) -> bytes:
        fine = [label % 3 for label in range(number)]
        data = np.random.default_rng(number).integers(256, size=(number, 3072), dtype=np.uint8)
        return old_pickle({b"data": data, b"fine_labels": fine, b"coarse_labels": [0] * number})

    made = {
        "train": part(30),
        "test": part(6),
        "meta": old_pickle({b"fine_label_names": [b"apple", b"bear", b"cloud"]}),
    }
    checksums = {name: MappingProxyType({name: md5(content)}) for name, content in made.items()}
    monkeypatch.setattr(Cifar100, "files", replace(Cifar100.files, **checksums))
    return made


def write(contents: dict[str, bytes], folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def serve(contents: dict[str, bytes], served: Path, md5: Checksum, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    path = served / "cifar-100-python.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    files = replace(Cifar100.files, url=url + path.name, md5=md5(path.read_bytes()))
    monkeypatch.setattr(Cifar100, "files", files)


def test_cifar100_has_fine_labels(contents: dict[str, bytes], tmp_path: Path) -> None:
    write(contents, tmp_path / FOLDER)
    data = Cifar100().load(0, root=tmp_path)
    assert data.train.targets.tolist() == [0, 1, 2] * 10
    assert data.classes == ("apple", "bear", "cloud")
    assert data.outputs == 3
    row = np.random.default_rng(30).integers(256, size=(30, 3072), dtype=np.uint8)[4]
    assert torch.equal(data.train.inputs[4].flatten(), torch.from_numpy(row))


def test_missing_folder_is_named_with_two_ways_out(tmp_path: Path) -> None:
    message = (
        rf"^Cifar10 has no data: folder {re.escape(str(tmp_path))}/cifar-10-batches-py does not exist\. "
        r"Use download=True \(`--download true`\), or put the files of https://www\.cs\.toronto\.edu/~kriz/"
        r"cifar-10-python\.tar\.gz there\.$"
    )
    with pytest.raises(DataError, match=message):
        Cifar10().load(0, root=tmp_path)


def test_root_is_the_folder_data_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"folder {re.escape(str(tmp_path))}/data/cifar-10-batches-py does not exist"):
        Cifar10().load(0)


def test_missing_file_is_named(contents: dict[str, bytes], tmp_path: Path) -> None:
    write(contents, tmp_path / FOLDER)
    (tmp_path / FOLDER / "test").unlink()
    with pytest.raises(DataError, match=r"^Cifar100 has no data: folder .*/cifar-100-python lacks test\. Use download"):
        Cifar100().load(0, root=tmp_path)


def test_corrupt_file_is_named_with_both_checksums(data_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    shutil.copytree(data_root / "cifar-10-batches-py", folder, copy_function=_link)
    (folder / "batches.meta").unlink()
    (folder / "batches.meta").write_bytes(b"")
    message = (
        r"/cifar-10-batches-py/batches\.meta has MD5 d41d8cd98f00b204e9800998ecf8427e: must be "
        r"5ff9c542aee3614f3951f8cda6e48888\. "
        r"Remove the file, and get it again with download=True \(`--download true`\)\.$"
    )
    with pytest.raises(DataError, match=message):
        Cifar10().load(0, root=tmp_path)


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(source)


def test_file_without_labels_is_refused(
    contents: dict[str, bytes], old_pickle: Writer, md5: Checksum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents["meta"] = old_pickle({b"coarse_label_names": []})
    checksums = MappingProxyType({"meta": md5(contents["meta"])})
    monkeypatch.setattr(Cifar100, "files", replace(Cifar100.files, meta=checksums))
    write(contents, tmp_path / FOLDER)
    message = r"has a file with coarse_label_names: must hold fine_label_names\. Get it again from its source\.$"
    with pytest.raises(DataError, match=message):
        Cifar100().load(0, root=tmp_path)


def test_download_puts_the_files_there_and_nothing_else(
    contents: dict[str, bytes],
    server: tuple[str, Path],
    md5: Checksum,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, served = server
    serve(contents, served, md5, monkeypatch, url)
    root = tmp_path / "root"
    assert len(Cifar100().load(0, root=root, download=True).train) == 30
    assert sorted(path.name for path in root.rglob("*")) == sorted([FOLDER, *contents])
    (served / "cifar-100-python.tar.gz").unlink()
    assert len(Cifar100().load(0, root=root, download=True).test) == 6


def test_download_completes_a_folder_that_lacks_a_file(
    contents: dict[str, bytes],
    server: tuple[str, Path],
    md5: Checksum,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, served = server
    serve(contents, served, md5, monkeypatch, url)
    write({"train": contents["train"]}, tmp_path / FOLDER)
    assert len(Cifar100().load(0, root=tmp_path, download=True).test) == 6
