"""The settings of a process while it trains."""

import contextlib
import logging
import signal
import threading
import warnings
from collections.abc import Iterator

import torch


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
