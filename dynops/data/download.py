"""Downloads that are whole or not there."""

import hashlib
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.request import urlopen

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from dynops.errors import DataError

CHUNK = 1 << 18  # bytes
PATIENCE = 30.0  # seconds without a byte


def fetch(url: str, path: Path, md5: str) -> None:
    """Download a file, unless it is there already.

    The bytes go to a temporary file beside `path`, which takes its name once the checksum is right.

    Args:
        url: address of the file.
        path: where it goes; its folder is made.
        md5: the checksum as published, in hexadecimal digits.
    Raises:
        DataError: the address cannot be read, or what came has another checksum.
    """
    if path.exists() and hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == md5:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            came = _write(file, url, path)
        if came != md5:
            raise DataError(
                f"{url} has content with MD5 {came}: must be {md5}. Try again, or put the right file at {path}."
            )
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def unpack(archive: Path, names: Iterable[str], folder: Path) -> None:
    """Take files out of a tar archive, each one whole or not at all.

    Args:
        archive: the tar archive; its members lie in a folder of the name of `folder`.
        names: the files that are wanted.
        folder: where they go.
    Raises:
        DataError: the archive cannot be read, reaches out of its folder, or lacks a file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(temporary, filter="data")
            for name in names:
                os.replace(Path(temporary, folder.name, name), folder / name)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise DataError(
                f"{archive} has content that cannot be unpacked ({error}): must be a tar archive with the folder "
                f"{folder.name}. Remove the file, and get it again."
            ) from error


def _write(file: BinaryIO, url: str, path: Path) -> str:
    checksum = hashlib.md5(usedforsecurity=False)
    columns = (TextColumn(path.name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(url, total=None)
        for chunk, total in _chunks(url, path):
            file.write(chunk)
            checksum.update(chunk)
            progress.update(bar, advance=len(chunk), total=total)
    return checksum.hexdigest()


def _chunks(url: str, path: Path) -> Iterator[tuple[bytes, int | None]]:
    try:
        with urlopen(url, timeout=PATIENCE) as response:
            length = response.headers.get("Content-Length")
            while chunk := response.read(CHUNK):
                yield chunk, int(length) if length else None
    except (OSError, HTTPException) as error:
        raise DataError(
            f"{url} has no answer ({error}): must be reachable. "
            f"Check the network and try again, or get the file elsewhere and put it at {path}."
        ) from error
