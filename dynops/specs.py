"""Specs: frozen values that compare, hash, print as the Python that makes them, and go to and from JSON."""

import hashlib
import json
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Self, TypeVar, dataclass_transform

from dynops.errors import SpecError

T = TypeVar("T", bound="Spec")
Scalar = str | int | float | bool | None

_classes: dict[str, type["Spec"]] = {}


class Spec:
    """Base of all specs; a concrete one is decorated with `@spec`."""

    __slots__ = ()

    def __repr__(self) -> str:
        parts = []
        for each in _fields(type(self)):
            value = getattr(self, each.name)
            if not each.kw_only:
                parts.append(repr(value))
            elif value != _default(each):
                parts.append(f"{each.name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def to_plain(self) -> dict[str, Any]:
        """Return the spec as plain data: its class in `type`, and every field that differs from its default."""
        plain: dict[str, Any] = {"type": type(self).__name__}
        for each in _fields(type(self)):
            value = getattr(self, each.name)
            if value != _default(each):
                plain[each.name] = _to_plain(value)
        return plain

    def to_json(self) -> str:
        """Return the spec as canonical JSON: equal specs give equal text."""
        return canonical_json(self.to_plain())

    @classmethod
    def from_plain(cls, plain: Any) -> Self:
        """Make the spec that `to_plain` described.

        Raises:
            SpecError: the data names no known spec, a field that it lacks, or a spec of another kind.
        """
        made = _from_plain(plain)
        if not isinstance(made, cls):
            raise SpecError(f"plain data has {type(made).__name__}: must describe a {cls.__name__}.")
        return made

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Make the spec that `to_json` wrote; errors as in `from_plain`."""
        try:
            plain = json.loads(text)
        except json.JSONDecodeError as error:
            raise SpecError(f"text has {text[:40]!r}: must be JSON ({error}).") from error
        return cls.from_plain(plain)

    def fingerprint(self) -> str:
        """Return 12 hexadecimal digits that identify the value, on every machine."""
        return digest(self.to_plain())


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def spec(cls: type[T]) -> type[T]:
    """Make a class a spec: a frozen dataclass with slots that JSON knows by the class's name."""
    made = dataclass(frozen=True, kw_only=True, slots=True, repr=False)(cls)
    known = _classes.get(made.__name__)
    if known is not None and known.__module__ != made.__module__:
        raise SpecError(f"spec has name {made.__name__!r}: {known.__module__} has one of that name. Rename one.")
    _classes[made.__name__] = made
    return made


def canonical_json(plain: Any) -> str:
    """Return plain data as JSON text that is equal for equal data."""
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(plain: Any) -> str:
    """Return 12 hexadecimal digits that identify plain data."""
    return hashlib.sha256(canonical_json(plain).encode()).hexdigest()[:12]


def one_of(name: str, value: object, legal: tuple[object, ...]) -> None:
    """Raise a SpecError unless the value is a legal one."""
    if value not in legal:
        raise SpecError(f"{name} has {value!r}: must be one of {', '.join(repr(each) for each in legal)}.")


def of_kind(name: str, value: object, kind: type) -> None:
    """Raise a SpecError unless the value is an instance of a class."""
    if not isinstance(value, kind):
        raise SpecError(f"{name} has {value!r}: must be of type {kind.__name__}.")


def at_least(name: str, value: object, least: int) -> None:
    """Raise a SpecError unless the value is an integer of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise SpecError(f"{name} has {value!r}: must be an integer of at least {least}.")


def _fields(cls: type[Spec]) -> "tuple[Field[Any], ...]":
    return fields(cls)  # type: ignore[arg-type]  # `spec` makes every concrete one a dataclass


def _default(each: "Field[Any]") -> Any:
    return each.default_factory() if each.default_factory is not MISSING else each.default


def _to_plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.to_plain()
    if isinstance(value, tuple):
        return [_to_plain(each) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 1.0 equals 1, so their text is one
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise SpecError(f"field has {value!r}: a spec holds specs, tuples, numbers, text and None only.")


def _from_plain(plain: Any) -> Any:
    if isinstance(plain, list):
        return tuple(_from_plain(each) for each in plain)
    if not isinstance(plain, dict):
        return plain
    name = plain.get("type")
    if not isinstance(name, str) or name not in _classes:
        raise SpecError(f"plain data has type {name!r}: must be one of {', '.join(sorted(_classes))}.")
    cls = _classes[name]
    known = {each.name for each in _fields(cls)}
    unknown = set(plain) - known - {"type"}
    if unknown:
        raise SpecError(f"{name} has {', '.join(sorted(unknown))}: its fields are {', '.join(sorted(known))}.")
    try:
        return cls(**{key: _from_plain(value) for key, value in plain.items() if key != "type"})
    except (TypeError, AttributeError) as error:
        raise SpecError(f"{name} has {plain}: {error}.") from error
