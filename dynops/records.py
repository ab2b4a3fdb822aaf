"""Run records: what one training left behind, as plain data that outlives code, networks and machines."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

from dynops.errors import RecordError
from dynops.specs import digest

Status = Literal["complete", "diverged", "failed", "pruned"]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run of one cell of a study, or of one training on its own."""

    levels: Mapping[str, str] = field(default_factory=dict)
    """The level of each factor, by names; empty for a training outside a study."""
    seed: int
    """The block: the seed of all random streams."""
    status: Status
    """`complete`; `diverged`: a result, scored as a trivial predictor; `failed`: an exception, no result; `pruned`:
    ended early by a search, no result."""
    reason: str = ""
    """Why it diverged or was pruned, or the traceback of the failure."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Outcomes by name: `accuracy` (0 to 1), `loss`, `best_accuracy`, `best_loss`, `train_loss`; with kernels
    averaged, `accuracy_averaged_hw`, `loss_averaged_bhw` and so on."""
    history: tuple[Mapping[str, float], ...] = ()
    """One entry an epoch: `epoch` (from 1), `train_loss`, `loss`, `accuracy`, `learning_rate`."""
    parameters: int = 0
    """Trainable parameters of the network."""
    macs: int = 0
    """Multiply-accumulates of one forward pass over one input."""
    seconds: float = 0.0
    """Wall time of the run, or its share of a program that trained several seeds; of the last part alone, where it was
    cut off and went on from a checkpoint."""
    step_milliseconds: float = 0.0
    """Median wall time of one training step, or its share of a step of several seeds."""
    peak_memory: int = 0
    """Bytes: peak of the device's allocator on a GPU, peak resident set of the process on a CPU."""
    device: str = ""
    """Name of the device."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of Python and of the libraries that did the work."""
    commit: str = ""
    """Commit of the code; `+` at its end says that the tree held changes; empty outside a checkout."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """What was run: network, data and recipe as plain data."""
    images: Mapping[str, Any] = field(default_factory=dict)
    """`inputs`: images, `n c h w`; `kernels`: by layer, each pixel's kernel summed over groups and taps, `n h w`."""

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise RecordError(f"status has {self.status!r}: must be one of {', '.join(get_args(Status))}.")
        for numbers in (self.metrics, *self.history):
            for name, value in numbers.items():
                if not math.isfinite(value):
                    raise RecordError(f"{name} has {value}: must be finite. Score a run that diverges.")

    @property
    def cell(self) -> str:
        """The levels as text that is readable in a path: `kernel=pixel,channels=grouped`."""
        return cell_name(self.levels)

    @property
    def point(self) -> str:
        """Identity of the design point, (cell, seed)."""
        return point_id(self.levels, self.seed)

    @property
    def accepted(self) -> bool:
        """Whether the run is a result."""
        return self.status in ("complete", "diverged")

    def to_json(self) -> str:
        """Return the record as one line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> "RunRecord":
        """Make a record from one line of JSON.

        Raises:
            RecordError: the line is not a record.
        """
        try:
            plain = json.loads(text)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RecordError(f"line has {text[:40]!r}: must be JSON ({error}).") from error
        known = {each.name for each in fields(cls)}
        if not isinstance(plain, dict) or not {"seed", "status"} <= set(plain) <= known:
            raise RecordError(
                f"line has {str(plain)[:80]}: must hold the fields of a run record: {', '.join(sorted(known))}."
            )
        try:
            return cls(**plain | {"history": tuple(plain.get("history", ()))})
        except (TypeError, AttributeError) as error:
            raise RecordError(f"line has {str(plain)[:80]}: a field is of the wrong kind ({error}).") from error


def cell_name(levels: Mapping[str, str]) -> str:
    """Name a cell by its levels.

    >>> cell_name({"kernel": "pixel", "channels": "grouped"})
    'kernel=pixel,channels=grouped'
    """
    return ",".join(f"{factor}={level}" for factor, level in levels.items())


def point_id(levels: Mapping[str, str], seed: int) -> str:
    """Identify a design point by 12 hexadecimal digits; the order of the factors does not matter."""
    return digest({"levels": dict(levels), "seed": seed})


def read_records(path: Path, *, skip: int = 0) -> list[RunRecord]:
    """Read the records of a file; a torn last line, left by a kill while it was written, is passed over.

    Args:
        path: one record a line.
        skip: how many first lines hold something else.
    Raises:
        RecordError: a line before the last is not a record; nothing is changed on disk.
    """
    lines = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines[skip:-1], start=skip + 1):
        try:
            records.append(RunRecord.from_json(line))
        except RecordError as error:
            raise RecordError(
                f"{path} has a foreign line {number}: {error} Remove that line, or restore the file."
            ) from error
    return records


def append_record(path: Path, record: RunRecord) -> None:
    """Add a record at the end of a file, in the place of a torn last line, and wait for the disk."""
    append_lines(path, [record.to_json()])


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Add lines at the end of a file, in the place of a torn last line, and wait for the disk."""
    with open(path, "ab+") as file:
        if file.tell() and not _ends_whole(file):
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        file.write("".join(f"{line}\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())


def _ends_whole(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def write_atomically(path: Path, text: str) -> None:
    """Replace the text of a file so that a kill at any moment leaves the old text or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)  # a full disk needs no half of a file
        raise
