"""Poisoned memory, random cases of the formula, and the one table of tolerances."""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dynops.ops import BACKENDS, Geometry, Window, on_cuda
from dynops.ops.call import call_of

# float64, float32: rounding of a few hundred summands; half precision: a float32 sum that is rounded once
TOLERANCES = {
    torch.float64: {"rtol": 1e-12, "atol": 1e-12},
    torch.float32: {"rtol": 1e-5, "atol": 2e-5},
    torch.bfloat16: {"rtol": 2**-8, "atol": 2e-5},
    torch.float16: {"rtol": 2**-11, "atol": 2e-5},
}


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Fill memory that nobody wrote with NaN."""
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]


@pytest.fixture(autouse=True, scope="session")
def interpreter_like_a_gpu() -> None:
    """Have Triton's interpreter round to bfloat16, which it cuts off, and leave out its slow checks of overflow."""
    if not on_cuda.INTERPRETED:
        return
    interpreter, language = import_module("triton.runtime.interpreter"), import_module("triton.language")
    object.__setattr__(interpreter.interpreter_builder.options, "sanitize_overflow", False)
    convert = interpreter._convert_float

    def rounded(x: np.ndarray, source: Any, target: Any, mode: Any) -> np.ndarray:
        if (source, target) == (language.float32, language.bfloat16):
            return torch.tensor(x).to(torch.bfloat16).view(torch.uint16).numpy()
        return convert(x, source, target, mode)

    interpreter._convert_float = rounded


@pytest.fixture(scope="session")
def assert_near() -> Callable[[Tensor, Tensor], None]:
    """Compare with a more exact tensor, by the tolerance of the first one's dtype."""

    def check(found: Tensor, exact: Tensor) -> None:
        torch.testing.assert_close(found.to(exact.dtype), exact, **TOLERANCES[found.dtype])

    return check


@pytest.fixture(scope="session")
def takers() -> Callable[..., list[str]]:
    """Name the backends that take a sum; `test_local_sum_choice` holds which refuse."""

    def names(kernel: Tensor, value: Tensor, window: Geometry, offsets: Tensor | None = None) -> list[str]:
        call = call_of(kernel, value, window, offsets)
        return [name for name, backend in BACKENDS.items() if not backend.refusal(call)]

    return names


@pytest.fixture(scope="session")
def draw() -> Callable[..., tuple[Tensor, Tensor]]:
    """Draw a kernel and a value that fit a window; axes in `ones` have size 1 in the kernel."""

    def case(
        window: Window,
        size: tuple[int, int] = (6, 7),
        *,
        b: int = 2,
        g: int = 2,
        o: int = 1,
        i: int = 1,
        s: int = 2,
        ones: str = "",
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
    ) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        rows, columns = window.output_size(size)
        sizes = {"b": b, "g": g, "o": o, "i": i, "k": window.taps, "h": rows, "w": columns}
        shape = [1 if letter in ones else number for letter, number in sizes.items()]
        kernel = torch.randn(shape, generator=generator, dtype=torch.float64)
        value = torch.randn(b, g, i, s, *size, generator=generator, dtype=torch.float64)
        return kernel.to(dtype), value.to(dtype)

    return case
