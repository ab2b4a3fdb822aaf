"""How a study is made again elsewhere: a function of a module that returns it, with its arguments, as plain data.

A folder says no more than names and values, so that reading it runs nothing but a function that is declared to make a
study, in a module that is installed.
"""

import importlib
import inspect
import json
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from dynops.errors import StudyError

S = TypeVar("S")


def reference(function: Callable[..., Any]) -> str | None:
    """Name a function of a module as `package.module:name`; None if another process could not find it there."""
    module, name = _module(function), getattr(function, "__qualname__", "")
    return f"{module}:{name}" if module and name.isidentifier() else None


def resolve(name: str) -> Any:
    """Return what a reference names.

    Raises:
        StudyError: there is no such module, or nothing of that name in it.
    """
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise StudyError(
            f"study has maker {name!r} ({error}): must be a function of a module that can be imported here. Start the "
            "worker where the study was started, or install that module."
        ) from error


def described(maker: Callable[[], Any]) -> str | None:
    """Say as JSON how a study is made; None where its function or an argument is more than a name or a value."""
    bound = maker if isinstance(maker, partial) else partial(maker)
    name = reference(bound.func)
    plain = {"maker": name, "arguments": list(bound.args), "options": bound.keywords}
    try:
        text = json.dumps(plain, allow_nan=False)
    except (TypeError, ValueError):
        return None
    return text if name is not None and json.loads(text) == plain else None


def made(text: str, kind: type[S]) -> Callable[[], S]:
    """Return what makes a study, from what `described` said.

    Raises:
        StudyError: it is torn or foreign, or its function is not declared to return that kind.
    """
    try:
        plain = json.loads(text)
        name, arguments, options = str(plain["maker"]), list(plain["arguments"]), dict(plain["options"])
    except (ValueError, KeyError, TypeError) as error:
        raise StudyError(
            f"study has maker {text[:80]!r} ({error!r}): must be what a study wrote when it began."
        ) from error
    function = resolve(name)
    if not inspect.isfunction(function) or _returned(function) is not kind:
        raise StudyError(f"study has maker {name!r}: must be a function that is declared to return a {kind.__name__}.")
    try:
        inspect.signature(function).bind(*arguments, **options)
    except TypeError as error:
        raise StudyError(
            f"study has maker {name!r} with {text[:80]!r} ({error}): must be called as declared."
        ) from error
    return partial(function, *arguments, **options)


def _returned(function: Callable[..., Any]) -> Any:
    try:
        return get_type_hints(function).get("return")
    except (NameError, TypeError):  # it names what only a type checker sees
        return None


def _module(function: Callable[..., Any]) -> str | None:
    """The module under which another process can import a function, also where this one runs it as a program."""
    name = getattr(function, "__module__", None)
    if name != "__main__":
        return name
    main = sys.modules["__main__"]
    if main.__spec__ is not None:
        return main.__spec__.name
    file = Path(getattr(main, "__file__", None) or "")
    found = find_spec(file.stem) if file.is_file() else None
    return file.stem if found is not None and found.origin is not None and file.samefile(found.origin) else None
