"""CIFAR's pickles, read without running what a pickle may ask to run.

Python 2 wrote them: dictionaries of numbers, text, lists and numpy arrays of bytes. Inert values stand for the globals
that such an array names, so that a file reaches no code of Python or numpy, whatever it holds.
"""

import io
import math
import pickle
from typing import Any, NoReturn

import numpy as np

from dynops.errors import DataError

ALLOWED = ("numpy.core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype")


class _Array:
    """Stands for an array while it is read; refuses all but whole arrays of bytes in row-major order."""

    __slots__ = ("array",)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, column_major, content = state
        if not isinstance(dtype, _Bytes) or column_major or not isinstance(content, bytes):
            raise ValueError("an array that does not hold bytes in row-major order")
        if len(content) != math.prod(shape):
            raise ValueError(f"an array of shape {shape} with {len(content)} bytes")
        self.array = np.frombuffer(content, dtype=np.uint8).reshape(shape)


class _Bytes:
    """Stands for numpy's dtype of bytes."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Pass over byte order and alignment: a byte has none."""


class _Global:
    """Stands for a global that a pickle names; can be called as numpy's own pickles call it, and not be changed."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __setstate__(self, state: object) -> NoReturn:
        raise ValueError(f"a new state for {self._name}")

    def __call__(self, *args: Any) -> _Array | _Bytes:
        if self._name == "numpy.core.multiarray._reconstruct":
            return _Array()
        if self._name == "numpy.dtype" and args[0] in ("u1", b"u1"):
            return _Bytes()
        raise ValueError(f"a call of {self._name} with {args}")


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._source = name

    def find_class(self, module: str, name: str) -> _Global:
        full = f"{module}.{name}"
        if full not in ALLOWED:
            raise DataError(
                f"{self._source} has the global {full}: must name {', '.join(ALLOWED)} only. "
                "Do not trust the file; get it from its source."
            )
        return _Global(full)


def load_pickle(content: bytes, name: str) -> dict[str, Any]:
    """Read a dictionary of numbers, text, lists and arrays of bytes.

    Args:
        content: the pickle.
        name: what messages call it.
    Returns:
        The dictionary; arrays are uint8 and read-only, text of Python 2 is `bytes`, except for the keys.
    Raises:
        DataError: the pickle names any other global, holds any other array, is cut off, or is not a dictionary.
    """
    try:
        return _plain(_Unpickler(content, name).load())
    except DataError:
        raise
    except Exception as error:  # a broken pickle raises whatever its bytes happen to mean
        raise DataError(
            f"{name} has {len(content)} bytes that do not make sense ({type(error).__name__}: {error}): "
            "must be a whole pickle of a dictionary of text, numbers and arrays of bytes. Get it again from its source."
        ) from error


def _plain(loaded: object) -> dict[str, Any]:
    if not isinstance(loaded, dict):
        raise TypeError(f"a {type(loaded).__name__}, not a dictionary")
    return {_text(key): value.array if isinstance(value, _Array) else value for key, value in loaded.items()}


def _text(key: object) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)
