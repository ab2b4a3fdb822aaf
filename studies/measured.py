"""What was measured so far, kept on disk: a start that asks for the same goes on where another was cut off."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

from dynops.errors import StudyError
from dynops.records import write_atomically
from dynops.specs import digest
from dynops.training.environment import commit, device_name, versions

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("*.py", "*.c", "*.cu")


@dataclass(kw_only=True)
class Measured:
    """Results by name in one file of JSON, which is written anew as soon as there is another."""

    path: Path
    identity: Mapping[str, Any]
    """What all results were measured with, as plain data."""
    points: dict[str, Any] = field(default_factory=dict)
    """Results as plain data, in the order in which they came."""
    message: str = ""
    """What became of results that were there before; nothing where there were none."""

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        """Return the result of a name, measured now unless it is there."""
        if name not in self.points:
            self.points[name] = measure()
            write_atomically(self.path, json.dumps(self.plain(), indent=1, allow_nan=False) + "\n")
        return self.points[name]

    def plain(self) -> dict[str, Any]:
        """Return all that the file holds."""
        return {**self.identity, "points": self.points}


def open_measured(path: Path, identity: Mapping[str, Any]) -> Measured:
    """Go on with a file of results that have the same identity; results that have another are put aside.

    Args:
        path: the file; what is put aside lies beside it, under its name with the fingerprint of what it holds.
        identity: what the results are measured with, as plain data.
    Raises:
        StudyError: the file holds something else.
    """
    measured = Measured(path=path, identity=identity)
    if not path.exists():
        return measured
    found = _read(path)
    points = found.pop("points")
    differing = sorted(key for key in identity.keys() | found.keys() if identity.get(key) != found.get(key))
    if not differing:
        measured.points = points
        measured.message = f"{len(points)} results were there before; going on with the others."
        return measured
    aside = path.with_name(f"{path.stem}-{digest({**found, 'points': points})}{path.suffix}")
    path.rename(aside)
    name = differing[0]
    measured.message = (
        f"{path} has results of another {', '.join(differing)} ({name}: {found.get(name)}, now {identity.get(name)}): "
        f"starting anew. They are kept in {aside.name}."
    )
    return measured


def identity(device: torch.device, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what results depend on: the device, the versions, the code, and settings as plain data."""
    return {
        "device": device_name(device),
        "versions": versions(),
        "commit": commit(),
        "code": fingerprint(),
        "settings": dict(settings),
    }


@cache
def fingerprint() -> str:
    """Return 12 hexadecimal digits that identify the sources of dynops and its studies, committed or not."""
    paths = sorted(path for top in ("dynops", "studies") for end in SOURCES for path in (ROOT / top).rglob(end))
    return digest({str(path.relative_to(ROOT)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths})


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StudyError(
            f"{path} has no JSON ({error}): must hold results. Move it, or choose another folder."
        ) from error
    if not isinstance(found, dict) or not isinstance(found.get("points"), dict):
        raise StudyError(f"{path} has no points: must hold results. Move it, or choose another folder.")
    return found
