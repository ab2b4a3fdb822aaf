"""Stub until Ray is in place."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Ray:
    address: str = "auto"
    cpus: float = 1.0
    gpus: float | None = None
    most: int | None = None

    def employ(self, work: Callable[[], object]) -> None: ...
