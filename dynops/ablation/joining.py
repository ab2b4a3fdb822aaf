"""Joining a study that was started elsewhere, with nothing but its folder or its database."""

from contextlib import closing
from pathlib import Path
from uuid import uuid4

from dynops.ablation.database import shared_at
from dynops.ablation.maker import made
from dynops.ablation.study import Study
from dynops.ablation.workers import Call, be_worker, hear
from dynops.errors import StudyError


def join(folder: Path, storage: str | None = None, *, retry_failed: bool = False) -> None:
    """Be one more worker, in a process that is for that alone; return when every point is settled.

    Args:
        folder, storage, retry_failed: as in `Study.execute`.
    Raises:
        StudyError: no study began there, or it can't be made again from plain data.
    """
    with closing(shared_at(folder, storage)) as shared:
        begun, text = shared.plan() is not None, shared.maker()
    if not begun:
        raise StudyError(f"{folder} has no study: must hold one. Start the study first.")
    if text is None:
        raise StudyError(
            f"{folder} has a study that does not say how it is made: must be executed with `maker`, a function of a "
            "module with plain arguments. Or run its own script here, with this folder."
        )
    hear()
    call = Call(folder=folder, storage=storage, maker=text, retry=uuid4().hex if retry_failed else None)
    be_worker(made(text, Study), call)
