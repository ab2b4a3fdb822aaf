"""Downloads from a server on this machine: whole, corrupt, absent, cut off."""

import io
import re
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import pytest

from dynops.data import download
from dynops.data.download import fetch, unpack
from dynops.errors import DataError

Checksum = Callable[[bytes], str]
CONTENT = bytes(range(256)) * 4000


def test_whole_file_arrives(server: tuple[str, Path], tmp_path: Path, md5: Checksum) -> None:
    url, served = server
    (served / "file").write_bytes(CONTENT)
    path = tmp_path / "new" / "file"
    fetch(url + "file", path, md5(CONTENT))
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]


def test_right_file_is_not_fetched_again(tmp_path: Path, md5: Checksum) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    fetch("http://127.0.0.1:9/file", path, md5(CONTENT))


def test_wrong_file_is_replaced(server: tuple[str, Path], tmp_path: Path, md5: Checksum) -> None:
    url, served = server
    (served / "file").write_bytes(CONTENT)
    path = tmp_path / "file"
    path.write_bytes(b"old")
    fetch(url + "file", path, md5(CONTENT))
    assert path.read_bytes() == CONTENT


def test_corrupt_content_leaves_nothing(server: tuple[str, Path], tmp_path: Path, md5: Checksum) -> None:
    url, served = server
    (served / "file").write_bytes(b"changed")
    path = tmp_path / "new" / "file"
    message = (
        rf"^{url}file has content with MD5 {md5(b'changed')}: must be {md5(CONTENT)}\. "
        rf"Try again, or put the right file at {re.escape(str(path))}\.$"
    )
    with pytest.raises(DataError, match=message):
        fetch(url + "file", path, md5(CONTENT))
    assert not list(path.parent.iterdir())


def test_absent_file_is_named_with_a_way_out(server: tuple[str, Path], tmp_path: Path, md5: Checksum) -> None:
    url, _ = server
    path = tmp_path / "new" / "file"
    message = (
        rf"^{url}file has no answer \(HTTP Error 404: File not found\): must be reachable\. Check the network and try "
        rf"again, or get the file elsewhere and put it at {re.escape(str(path))}\.$"
    )
    with pytest.raises(DataError, match=message):
        fetch(url + "file", path, md5(CONTENT))
    assert not list(path.parent.iterdir())


def test_no_network_is_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/file"
        with pytest.raises(DataError, match=rf"^{url} has no answer \(.*refused.*\): must be reachable\."):
            fetch(url, tmp_path / "file", "0" * 32)


@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError])
def test_broken_download_leaves_the_old_file(
    error: type[BaseException], server: tuple[str, Path], tmp_path: Path, md5: Checksum, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaks(io.BytesIO):
        headers = MappingProxyType({"Content-Length": "4"})

        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise error
            return super().read(2)

    monkeypatch.setattr(download, "urlopen", lambda url, timeout: Breaks(b"abcd"))
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else DataError):
        fetch("http://127.0.0.1/file", path, md5(b"abcd"))
    assert path.read_bytes() == b"old"
    assert not list(tmp_path.glob("*.part"))


def tar_with(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_unpacked_files_are_those_that_were_wanted(tmp_path: Path) -> None:
    archive = tar_with(tmp_path / "a.tar.gz", {"images/one": b"1", "images/two": b"2", "images/readme": b"3"})
    unpack(archive, ["one", "two"], tmp_path / "images")
    assert {path.name: path.read_bytes() for path in (tmp_path / "images").iterdir()} == {"one": b"1", "two": b"2"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "images"]


def test_archive_that_reaches_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    archive = tar_with(tmp_path / "a.tar.gz", {"../../outside": b"1"})
    message = (
        r"a\.tar\.gz has content that cannot be unpacked \(.*outside the destination.*\): must be a tar archive with "
        r"the folder images\. Remove the file, and get it again\.$"
    )
    with pytest.raises(DataError, match=message):
        unpack(archive, ["one"], tmp_path / "deep" / "images")
    assert not list(tmp_path.rglob("outside"))


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_file_that_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar\.gz has content that cannot be unpacked \("):
        unpack(archive, ["one"], tmp_path / "images")


def test_archive_that_lacks_a_file_is_refused(tmp_path: Path) -> None:
    archive = tar_with(tmp_path / "a.tar.gz", {"images/one": b"1"})
    with pytest.raises(DataError, match=r"cannot be unpacked \(.*No such file.*images/two"):
        unpack(archive, ["one", "two"], tmp_path / "images")
