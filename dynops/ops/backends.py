"""The backends of `local_sum`, and which of them takes a sum."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor

from dynops.errors import SpecError
from dynops.ops import in_torch, native, on_cuda
from dynops.ops.call import Call
from dynops.specs import one_of


class Backend(NamedTuple):
    """One way to take sums."""

    run: Callable[[Call], Tensor]
    """Takes a sum that is not refused."""
    refusal: Callable[[Call], str]
    """Says why a sum is refused; nothing where it is not."""


BACKENDS = {
    "native": Backend(native.run, native.refusal),
    "triton": Backend(on_cuda.run, on_cuda.refusal),
    "convolution": Backend(in_torch.convolution, in_torch.refuses_convolution),
    "products": Backend(in_torch.products, in_torch.refuses_products),
    "shift": Backend(in_torch.shift, lambda call: ""),
    "reference": Backend(in_torch.reference, lambda call: ""),
}
"""By name, the fastest first; each is faster than those below it wherever it does not refuse."""
_forced: str | None = None


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Take all sums inside with one backend; a sum that it refuses raises a SpecError.

    It holds for all threads, and for what is compiled inside.

    Args:
        name: one of `BACKENDS`.
    Raises:
        SpecError: there is no such backend.
    """
    global _forced
    one_of("name", name, tuple(BACKENDS))
    before, _forced = _forced, name
    try:
        yield
    finally:
        _forced = before


def asked_for(name: str | None) -> str | None:
    """Return the backend that a call or `use_backend` asks for; None where the choice is free.

    Raises:
        SpecError: there is no such backend.
    """
    if name is not None:
        one_of("backend", name, tuple(BACKENDS))
    return name or _forced


def choose(call: Call, name: str | None = None) -> str:
    """Name the backend that takes a sum: the one asked for, or the fastest that does not refuse.

    Raises:
        SpecError: the one asked for refuses.
    """
    name = asked_for(name)
    if name is None:
        return next(each for each, backend in BACKENDS.items() if not backend.refusal(call))
    if reason := BACKENDS[name].refusal(call):
        raise SpecError(f"backend has {name!r}: it takes no such sum, as {reason}. Leave the choice to `local_sum`.")
    return name


def explain_choice(call: Call, name: str | None = None) -> str:
    """Say in a few lines which backend takes a sum, and why each other does not."""
    chosen = choose(call, name)
    lines = []
    for each, backend in BACKENDS.items():
        reason = backend.refusal(call) or ("not asked for" if name or _forced else "slower")
        lines.append(f"{each:12} {'takes it' if each == chosen else reason}")
    return "\n".join(lines)
