"""The settings of a process while it trains."""

import contextlib
import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from typing import Literal

import torch

Precision = Literal["32-true", "16-mixed", "bf16-mixed"]


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Keep Lightning's tips to itself, and give back the settings that a trainer changes for the whole process."""
    logger = logging.getLogger("lightning.pytorch")
    level, deterministic = logger.level, torch.are_deterministic_algorithms_enabled()
    on_interrupt = signal.getsignal(signal.SIGINT)
    benchmark = torch.backends.cudnn.benchmark
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logger.setLevel(level)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, on_interrupt)  # Lightning leaves Ctrl-C ignored once it was pressed
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = benchmark


def precision_of(name: str, accelerator: str, together: bool) -> Precision:
    """Return Lightning's name of a recipe's precision, and for `auto` the fastest that an accelerator trains well in.

    Args:
        name: the recipe's.
        accelerator: `cpu`, `cuda` or `mps`.
        together: whether several seeds are trained at once.
    """
    if name == "bfloat16" or (name == "auto" and accelerator == "cuda" and torch.cuda.is_bf16_supported()):
        return "bf16-mixed"
    if name == "auto" and accelerator == "cuda" and not together:  # one scale for all losses would tie the seeds
        return "16-mixed"
    return "32-true"
