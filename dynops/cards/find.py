"""Find the layer that a name means: one of the zoo, or a variant in a file of the user's own."""

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from dynops.cards.docs import Docs, read
from dynops.cards.family import make
from dynops.errors import SpecError
from dynops.ops.geometry import Size
from dynops.parts import zoo
from dynops.parts.layer import Layer
from dynops.specs import at_least


@dataclass(frozen=True, kw_only=True)
class Found:
    """A layer with what is said of it."""

    name: str
    layer: Layer
    docs: Docs


def find(name: str, channels: int, size: Size, networks: Iterable[str] = ()) -> Found:
    """Find a layer by name.

    Args:
        name: a name of the zoo, or `path/to/file.py:name` of a layer or of a function that returns one.
        channels: the width, for a function that takes it as `channel`.
        size: the input's grid, for a function that takes it as `grid`.
        networks: names that would have been good as well, for the message about one that there is not.
    Raises:
        SpecError: there is no such operator, file or name, the file cannot be imported, or it is no layer.
    """
    at_least("channels", channels, 1)
    if ":" in name or name.endswith(".py"):
        return _in_file(name, channels, size)
    members = {member.__name__: member for member in zoo.FAMILY}
    if name not in members:
        others = tuple(networks)
        near = get_close_matches(name, (*members, *others), n=4)
        all_others = f". Networks: {', '.join(others)}" if others else ""
        way_out = f"Near: {', '.join(near)}" if near else f"It has {', '.join(members)}{all_others}"
        also = " a network," if others else ""
        raise SpecError(f"name has {name!r}: must be of the zoo,{also} or path/to/file.py:name. {way_out}.")
    return Found(name=name, layer=make(members[name], channels, size), docs=read(inspect.getdoc(members[name])))


def _in_file(name: str, channels: int, size: Size) -> Found:
    text, _, wanted = name.rpartition(":") if not name.endswith(".py") else (name, ":", "")
    path = Path(text)
    if not path.is_file():
        raise SpecError(f"name has {name!r}: there is no file {text}. Give path/to/file.py:name.")
    module = _imported(name, path)
    if wanted not in vars(module):
        names = _candidates(module)
        way_out = f"It has {', '.join(names)}" if names else "It has no layer either"
        raise SpecError(f"name has {name!r}: must end in a name of {path.name}. {way_out}.")
    value = vars(module)[wanted]
    if isinstance(value, Layer):
        return Found(name=wanted, layer=value, docs=Docs())
    layer = _called(name, value, channels, size) if inspect.isfunction(value) else value
    if not isinstance(layer, Layer):
        raise SpecError(f"{name} has {layer!r}: must be a Layer, or a function that returns one.")
    return Found(name=wanted, layer=layer, docs=read(inspect.getdoc(value)))


def _called(name: str, function: Callable[..., Layer], channels: int, size: Size) -> object:
    parameters = inspect.signature(function).parameters.values()
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [
        each.name
        for each in parameters
        if each.default is each.empty and each.kind not in free and each.name not in ("channel", "grid")
    ]
    if required:
        raise SpecError(
            f"{name} has required arguments {', '.join(required)}: must be callable without, but for channel and grid. "
            "Give them defaults."
        )
    return make(function, channels, size)


def _imported(name: str, path: Path) -> ModuleType:
    title = f"{path.stem} (card)"  # no module of that name can be in its way
    spec = importlib.util.spec_from_file_location(title, path)
    if spec is None or spec.loader is None:
        raise SpecError(f"name has {name!r}: {path.name} is no Python file. Give path/to/file.py:name.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[title] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[title]
        raise SpecError(
            f"name has {name!r}: {path.name} must be importable, but raises {type(error).__name__} ({error})."
        ) from error
    return module


def _candidates(module: ModuleType) -> list[str]:
    """Name the layers of a module, and the functions that it defines itself."""
    return [
        name
        for name, value in vars(module).items()
        if isinstance(value, Layer) or (inspect.isfunction(value) and value.__module__ == module.__name__)
        if not name.startswith("_")
    ]
