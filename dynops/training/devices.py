"""One training on several devices: a process for each, which share every batch and add up their gradients."""

import multiprocessing
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import torch
import torch.distributed
from torch.multiprocessing.spawn import ProcessContext, ProcessException, start_processes

from dynops.errors import DynopsError, SpecError
from dynops.records import RunRecord
from dynops.training.environment import choose_accelerator
from dynops.training.outcome import Epoch
from dynops.training.program import Program

PATIENCE = timedelta(minutes=30)  # how long a process waits for the others
SIGN = 1.0  # seconds between two signs of the first process that it gets on
PAUSE = 0.02  # seconds between two looks at what the processes say
PARTING = 10.0  # seconds that a process has to end by itself after the records


def train_on_devices(program: Program) -> list[RunRecord]:
    """Train on several devices of this machine, and return what the first process recorded.

    Raises:
        SpecError: there are fewer devices, or the batch size does not divide.
        DynopsError: whatever the training raises.
    """
    accelerator = choose_accelerator(program.accelerator)
    _check(program, accelerator)
    context = torch.multiprocessing.get_context("spawn")
    said, heard = context.SimpleQueue(), context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (
            replace(program, accelerator=accelerator, on_epoch=None, on_step=None),
            Path(folder) / "meeting",
            torch.get_num_threads(),
            multiprocessing.get_start_method(allow_none=True),
            (said, heard),
        )
        processes = start_processes(_work, arguments, program.devices, join=False, start_method="spawn")
        assert isinstance(processes, ProcessContext)
        try:
            records = _listen(processes, said, heard, program)
            for process in processes.processes:
                process.join(PARTING)
            return records
        finally:
            for process in processes.processes:
                process.kill()
                process.join()


def _check(program: Program, accelerator: str) -> None:
    devices, size = program.devices, program.recipe.batch_size
    if accelerator == "cuda" and devices > torch.cuda.device_count():
        raise SpecError(f"devices has {devices}: this machine has {torch.cuda.device_count()} GPUs.")
    if accelerator == "mps":
        raise SpecError(f"devices has {devices}, accelerator has 'mps': must be 1. Or use accelerator='cpu'.")
    if size % (devices * program.recipe.accumulate):
        raise SpecError(
            f"devices has {devices}, batch_size has {size}, accumulate has {program.recipe.accumulate}: devices times "
            "accumulate must be a divisor of the batch size, so that all parts are equal."
        )


def _listen(processes: ProcessContext, said: Any, heard: Any, program: Program) -> list[RunRecord]:
    """Wait for the records; pass on each epoch, that there are steps, and what went wrong."""
    while True:
        over, failure = False, None
        try:
            over = processes.join(timeout=PAUSE)
        except ProcessException as error:
            failure = error  # perhaps for want of a process that said what went wrong
        while not said.empty():
            message = said.get()
            if isinstance(message, DynopsError):
                raise message
            if isinstance(message, list):
                return message
            if message is None:
                if program.on_step is not None:
                    program.on_step()
                continue
            if program.on_epoch is not None:
                program.on_epoch(message)
            heard.put(True)  # only now is the epoch's checkpoint written, as on one device
        if failure is not None:
            raise failure
        assert not over, "the first process says what it recorded"


def _work(rank: int, program: Program, meeting: Path, threads: int, start: str | None, queues: tuple[Any, Any]) -> None:
    """Be one of the processes: train, and say what went wrong, or what came out if this is the first one."""
    said, heard = queues
    Thread(target=_follow_parent, daemon=True).start()
    torch.set_num_threads(threads)
    multiprocessing.set_start_method(start, force=True)  # else each one that decodes would import all anew
    os.environ["LOCAL_RANK"] = str(rank)  # by this Lightning knows that it need not start processes itself

    def on_epoch(epoch: Epoch) -> None:
        said.put(epoch)
        heard.get()

    last = time.monotonic()

    def on_step() -> None:
        nonlocal last
        if time.monotonic() - last > SIGN:
            last = time.monotonic()
            said.put(None)

    try:
        _meet(rank, program, meeting)
        if rank == 0:
            program = replace(program, on_epoch=on_epoch, on_step=on_step)
        records = replace(program, rank=rank).run()
        if rank == 0:
            said.put(records)
    except DynopsError as error:
        said.put(error)
    finally:
        with suppress(Exception):  # what happened before matters more
            torch.distributed.destroy_process_group()


def _follow_parent() -> None:
    """End this process when the one that started it has ended, however; nobody would hear what it says."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "this process was started"
    parent.join()
    os._exit(1)


def _meet(rank: int, program: Program, meeting: Path) -> None:
    cuda = program.accelerator == "cuda"
    if cuda:
        torch.cuda.set_device(rank)
    torch.distributed.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=meeting.as_uri(),
        rank=rank,
        world_size=program.devices,
        timeout=PATIENCE,
        device_id=torch.device("cuda", rank) if cuda else None,
    )
