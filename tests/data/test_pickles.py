"""Pickles: what CIFAR needs is read, everything else is refused before it runs."""

import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynops.data.pickles import load_pickle
from dynops.errors import DataError

Writer = Callable[[Any], bytes]


class _Runs:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def test_arrays_numbers_and_text_are_read(old_pickle: Writer) -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    loaded = load_pickle(old_pickle({"data": array, b"labels": [1, 2], "name": b"x"}), "file")
    np.testing.assert_array_equal(loaded.pop("data"), array)
    assert loaded == {"labels": [1, 2], "name": b"x"}


def test_real_file_equals_an_unrestricted_read(data_root: Path) -> None:
    content = (data_root / "cifar-10-batches-py" / "test_batch").read_bytes()
    loaded = load_pickle(content, "test_batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some versions of numpy dislike how old ones wrote a dtype
        plain = pickle.loads(content, encoding="bytes")
    assert loaded["labels"] == plain[b"labels"]
    assert loaded["filenames"] == plain[b"filenames"]
    np.testing.assert_array_equal(loaded["data"], plain[b"data"])


@pytest.mark.parametrize(
    ("value", "forbidden"),
    [
        (_Runs(os.system, "touch ran"), f"{os.system.__module__}.system"),
        (_Runs(eval, "1"), "builtins.eval"),
        (_Runs(pickle.loads, b""), "_pickle.loads"),
        (np.float64(1), "numpy.core.multiarray.scalar"),
        (pickle.Pickler, "_pickle.Pickler"),
    ],
)
def test_any_other_global_is_named_and_does_not_run(
    value: object, forbidden: str, old_pickle: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = (
        rf"^file has the global {forbidden}: must name numpy\.core\.multiarray\._reconstruct, numpy\.ndarray, "
        r"numpy\.dtype only\. Do not trust the file; get it from its source\.$"
    )
    with pytest.raises(DataError, match=message):
        load_pickle(old_pickle({"data": value}), "file")
    assert not (tmp_path / "ran").exists()


def test_object_array_that_hides_a_call_is_refused(
    old_pickle: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hidden = np.array([_Runs(os.system, "touch ran")], dtype=object)
    with pytest.raises(DataError, match=r"bytes that do not make sense \(ValueError: a call of numpy\.dtype with"):
        load_pickle(old_pickle({"data": hidden}), "file")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("dtype", ["O", "f4", "i1", "u2", "S3", "M8[s]"])
def test_arrays_of_anything_but_bytes_are_refused(dtype: str, old_pickle: Writer) -> None:
    message = (
        r"^file has \d+ bytes that do not make sense \(ValueError: a call of numpy\.dtype with .*\): "
        r"must be a whole pickle of a dictionary of text, numbers and arrays of bytes\. Get it again from its source\.$"
    )
    with pytest.raises(DataError, match=message):
        load_pickle(old_pickle({"data": np.zeros(3, dtype=dtype)}), "file")


def _array_with(state: bytes) -> bytes:
    """A pickled dictionary with an array of three bytes, its state written by hand."""
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01bt"
    kind = b"cnumpy\ndtype\n(X\x02\x00\x00\x00u1K\x00K\x01tR"
    return b"\x80\x03}X\x04\x00\x00\x00data" + made + b"R" + state.replace(b"KIND", kind) + b"s."


def test_array_written_by_hand_is_read() -> None:
    loaded = load_pickle(_array_with(b"(K\x01(K\x03tKIND\x89C\x03abctb"), "file")
    assert loaded["data"].tobytes() == b"abc"


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (b"(K\x01(K\x04tKIND\x89C\x03abctb", r"ValueError: an array of shape \(4,\) with 3 bytes"),
        (b"(K\x01(K\x03tKIND\x88C\x03abctb", "ValueError: an array that does not hold bytes in row-major order"),
        (b"(K\x01(K\x03tKIND\x89]K\x01a]tb", "ValueError"),
        (b"(K\x01(K\x03tNC\x03abc\x89tb", "ValueError: an array that does not hold bytes in row-major order"),
        (b"", "AttributeError"),
        (b"0cnumpy\nndarray\n}X\x05\x00\x00\x00_nameK\x01sb", "ValueError: a new state for numpy.ndarray"),
        (b"0cnumpy\nndarray\n)R", "ValueError: a call of numpy.ndarray with"),
        (b"0cnumpy\ndtype\n)R", "IndexError"),
    ],
)
def test_arrays_with_a_false_state_are_refused(state: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=rf"bytes that do not make sense \({reason}"):
        load_pickle(_array_with(state), "file")


@pytest.mark.parametrize("kept", [0, 1, 10, 60, -1])
def test_cut_off_pickle_is_refused(kept: int, old_pickle: Writer) -> None:
    content = old_pickle({"data": np.zeros(100, dtype=np.uint8)})[:kept]
    with pytest.raises(DataError, match=rf"^file has {len(content)} bytes that do not make sense \(\w+Error: .*whole"):
        load_pickle(content, "file")


def test_pickle_of_anything_but_a_dictionary_is_refused(old_pickle: Writer) -> None:
    with pytest.raises(DataError, match=r"do not make sense \(TypeError: a list, not a dictionary\)"):
        load_pickle(old_pickle([1]), "file")
