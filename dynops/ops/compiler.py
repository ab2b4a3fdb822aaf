"""The user's C compiler: a source becomes a library once, in a cache that many processes share."""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from dynops.errors import DynopsError

COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-O3", "-shared", "-fPIC", "-std=gnu11", "-Wno-psabi")
TUNED = ("-march=native", "-mcpu=native", "")
"""What asks for all that this processor has; the first that the compiler knows is taken."""
THREADED = ("-fopenmp", "")
SECONDS = 120


class CompilerError(DynopsError):
    """There is no compiler, or it failed."""


def load(sources: Sequence[Path], *macros: str) -> ctypes.CDLL:
    """Compile sources, or find them in the cache, and load them.

    The cache is the folder `DYNOPS_CACHE`, or `dynops` in the user's cache. A library's name there holds source, flags,
    compiler and processor. Processes that begin at once may each compile; each of them loads a whole library.

    Args:
        sources: parts of one C source, which includes nothing but the standard library.
        macros: what is defined.
    Raises:
        CompilerError: there is no compiler, it failed, or the cache cannot be written.
    """
    compiler = _compiler()
    said = ""
    for flags in product(TUNED, THREADED):
        command = [*compiler, *FLAGS, *filter(None, flags), *(f"-D{macro}" for macro in macros)]
        try:
            return _loaded(sources, command)
        except subprocess.SubprocessError as error:
            said = (getattr(error, "stderr", "") or str(error)).strip()
        except OSError as error:
            said = str(error)
    raise CompilerError(
        f"{shlex.join(compiler)} has failed on {sources[0].name} ({said[:200]}): must compile and load C."
    )


def cache_folder() -> Path:
    """Return the folder of compiled libraries."""
    if own := os.environ.get("DYNOPS_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dynops"


def _compiler() -> list[str]:
    """The command of the compiler: that of `CC`, or the first that is installed."""
    chosen = shlex.split(os.environ.get("CC", ""))
    for words in [chosen] if chosen else [[name] for name in COMPILERS]:
        if path := shutil.which(words[0]):
            return [path, *words[1:]]
    raise CompilerError(f"CC has {' '.join(chosen) or 'nothing'}: there is no C compiler. Install cc, gcc or clang.")


def _loaded(sources: Sequence[Path], command: list[str]) -> ctypes.CDLL:
    version = subprocess.run([command[0], "--version"], capture_output=True, text=True, timeout=SECONDS).stdout
    text = "".join(source.read_text() for source in sources)
    key = hashlib.sha256("\0".join([text, *command, version, _processor()]).encode()).hexdigest()
    path = cache_folder() / f"{sources[0].stem}-{key[:24]}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            whole, made = Path(folder) / sources[0].name, Path(folder) / path.name
            whole.write_text(text)
            subprocess.run(
                [*command, str(whole), "-o", str(made)], check=True, capture_output=True, text=True, timeout=SECONDS
            )
            made.replace(path)  # whole or not at all, whoever else compiles
    return ctypes.CDLL(str(path))


def _processor() -> str:
    """What `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    known = {line for line in lines if line.startswith(("flags", "Features", "model name", "CPU part"))}
    return "\n".join([platform.machine(), platform.processor(), *sorted(known)])
