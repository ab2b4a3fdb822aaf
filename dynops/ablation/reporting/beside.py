"""A report is made beside the old one and then put in its place, so that a kill leaves whole files."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".report-"


@contextmanager
def beside(folder: Path) -> Iterator[Path]:
    """Give a folder beside the report, and remove it and those that killed reports left behind."""
    for left in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(left, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def put_in_place(made: Path, folder: Path, parts: Sequence[str] = ("figures", "tensorboard")) -> None:
    """Move folders of the report to where the old ones are."""
    for part in parts:
        if (folder / part).exists():
            os.replace(folder / part, made / f"{part}.old")
        os.replace(made / part, folder / part)
