"""Files of data sets: found, verified, or an error that says how to get them."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from dynops.errors import DataError


def read_verified(path: Path, md5: str) -> bytes:
    """Read a file whose content is known by its checksum.

    Args:
        path: the file.
        md5: the checksum as published, in hexadecimal digits.
    Raises:
        DataError: the content is another.
    """
    content = path.read_bytes()
    came = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if came != md5:
        raise DataError(
            f"{path} has MD5 {came}: must be {md5}. "
            "Remove the file, and get it again with download=True (`--download true`)."
        )
    return content


def refuse_missing(name: str, folder: Path, missing: Iterable[str], source: str) -> None:
    """Raise a DataError if files of a data set are missing.

    Args:
        name: of the data set.
        folder: where the files must lie.
        missing: names of the files that were not found.
        source: address of the files.
    """
    lacking = sorted(missing)
    if lacking:
        came = f"lacks {', '.join(lacking)}" if folder.is_dir() else "does not exist"
        raise DataError(
            f"{name} has no data: folder {folder.absolute()} {came}. "
            f"Use download=True (`--download true`), or put the files of {source} there."
        )
