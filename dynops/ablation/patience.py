"""Waiting for a place that is out for a while: a full disk, a database that restarts."""

import time
from collections.abc import Callable
from typing import TypeVar

from dynops.ablation.shared import Shared
from dynops.errors import StudyError

PATIENCE = 3600.0
"""Seconds for which it is waited for."""
PAUSE = 1.0
"""Seconds before the second try."""
LONGEST = 30.0
"""Seconds between two tries at most."""
T = TypeVar("T")


def patiently(
    shared: Shared,
    section: Callable[[], T],
    *,
    say: Callable[[str], None] = lambda text: print(text, flush=True),
    again: Callable[[], object] = lambda: None,
) -> T:
    """Do a section while a study is held; where its place is out for a while, say so, and do it again then.

    Args:
        shared: the study.
        section: may be cut off anywhere and done again.
        say: shows what is wrong.
        again: to be done before the section when it is done again.
    Raises:
        StudyError: the place is out for too long.
    """
    until, pause, afresh = time.monotonic() + PATIENCE, PAUSE, False
    while True:
        try:
            with shared.held():
                shared.mend()
                if afresh:
                    shared.close()
                    again()
                return section()
        except Exception as error:
            outage = shared.outage(error)
            if outage is None:
                raise
            if time.monotonic() > until:
                raise StudyError(f"{outage}: it must work. The same command goes on from here.") from error
            say(f"{outage}; trying again in {pause:.0f} s.")
            time.sleep(pause)
            pause, afresh = min(2 * pause, LONGEST), True
