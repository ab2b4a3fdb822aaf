"""The command line: a thin face over the layers below."""

import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from jsonargparse import auto_cli
from rich.console import Console
from rich.text import Text

from dynops.ablation import Report, SearchPlan, SearchReport, join, report, search_report
from dynops.ablation.database import shared_at
from dynops.ablation.reporting.planning import needed_seeds
from dynops.ablation.store import holds
from dynops.cards import card, family, find, markdown, network_card, rows, table
from dynops.errors import DynopsError, SpecError
from dynops.nets.named import NAMED, named

BARE = ("--help", "--print_config", "--print-config")
"""Options that have no value."""


def command(functions: Callable[..., None] | dict[str, Any], description: str, args: list[str] | None = None) -> None:
    """Run functions as commands, their arguments as options; an error about the input ends with its message alone.

    Names of options may have `-` for `_`, and one without a value is true. Exit status: 0; 2 after an error about the
    input; 130 after Ctrl-C, or when a scheduler ends it.

    Args:
        functions: one function, or functions by the name of their command.
        description: what the program does, in a sentence.
        args: the words of the command line; those of the process by default.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        words = sys.argv[1:] if args is None else args
        auto_cli(functions, _spelled(words), description=description)
    except DynopsError as error:
        Console(stderr=True).print(f"Error: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _spelled(words: Sequence[str]) -> list[str]:
    """Return options as they are defined: `--retry-failed`, with no value after it, is `--retry_failed=true`."""
    found = []
    for word, following in zip_longest(words, words[1:], fillvalue="--"):
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            bare = not equals and following.startswith("--") and name not in BARE
            found.append(name[:2] + name[2:].replace("-", "_") + ("=true" if bare else equals + value))
        else:
            found.append(word)
    return found


def show(made: Report) -> None:
    """Print the tables and verdicts of a report, and how to look at the rest."""
    console = Console(highlight=False)
    for each in made.tables():
        console.print(each)
    for headline, rest in made.verdicts():
        console.print(Text.assemble((headline, "bold"), f": {rest}"))
    lines = [
        f"\nThe whole report: {made.folder / 'report.md'}",
        f"As a page of its own: {made.html}",
        f"In TensorBoard: tensorboard --logdir {made.folder / 'tensorboard'}",
        *(f"  {name}: {address}" for name, address in made.pages().items()),
    ]
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def show_search(made: SearchReport) -> None:
    """Print the front that a search found, and how to look at the rest."""
    console = Console(highlight=False)
    for each in made.tables():
        console.print(each)
    console.print(made.closing(), markup=False, soft_wrap=True)


def report_command(folder: Path) -> None:
    """Make the report, figures and TensorBoard files of a study or a search anew from its records.

    Args:
        folder: of the study or search.
    """
    if holds(folder, SearchPlan):
        show_search(search_report(folder))
        return
    with closing(shared_at(folder)) as shared:
        shared.look()  # others may have added to a database
    show(report(folder))


def seeds_command(folder: Path, effect: float = 0.01) -> None:
    """Say how many seeds a study needs, from the spread in the seeds that it has.

    Args:
        folder: the study's folder; three complete seeds make a pilot.
        effect: smallest difference that matters, in units of the outcome; 0.01 is a point of accuracy.
    """
    table = needed_seeds(folder, effect)
    console = Console(highlight=False)
    console.print(table.to_terminal(*table.columns))
    console.print(table.note, markup=False)


def worker_command(folder: Path, storage: str | None = None, retry_failed: bool = False) -> None:
    """Be one more worker on a study that somebody started, on this or another machine, until all of it is done.

    Args:
        folder: of the study, which all its workers see; with a database, this machine's own one of the same name.
        storage: the study's database, `postgresql://user@host/database`; the folder notes it, once it was given.
        retry_failed: run the points that failed again, and nothing else.
    """
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does: a study is a module
    join(folder, storage, retry_failed=retry_failed)


def zoo_command(
    channels: int = 96,
    size: int = 56,
    variant: str | None = None,
    format: Literal["table", "markdown"] = "table",  # noqa: A002  # the option's name
) -> None:
    """List the published operators: what each is, and what it costs at one width and size.

    Args:
        channels: channels of the input.
        size: rows and columns of the input.
        variant: a layer of your own to stand below them, or a function that returns one: `path/to/file.py:name`.
        format: a table for the terminal, or Markdown.
    """
    listed = family(channels, (size, size))
    if variant is not None:
        found = find(variant, channels, (size, size))
        listed += rows(found.layer, name=found.name, group="variant", channels=channels, size=(size, size))
    if format == "markdown":
        _print(markdown(listed))
    else:
        # a file or a pipe has no width that a line could be too long for
        Console(highlight=False, width=None if sys.stdout.isatty() else 200).print(table(listed))


def card_command(
    name: str,
    operator: str | None = None,
    channels: int | None = None,
    size: int | None = None,
    outputs: int = 1000,
    folder: Path = Path(),
) -> None:
    """Say what an operator or a network is and what it costs, and draw it.

    Args:
        name: an operator of the zoo, or `path/to/file.py:name` of a layer of your own or of a function that returns
            one; or a network: `resnet26`, `rednet50`, `metaformer-s12`.
        operator: what stands in a network's slots: one of the zoo, or `path/to/file.py:name`; by default what the
            published network has.
        channels: channels of the input, by default 96 for an operator and 3 for a network.
        size: rows and columns of the input, by default 56 for an operator and 224 for a network.
        outputs: classes of a network.
        folder: where the picture goes.
    """
    if name in NAMED:
        shape = (3 if channels is None else channels, *(224 if size is None else size,) * 2)
        text, path = _network_card(name, operator, shape, outputs, folder)
    else:
        if operator is not None:
            raise SpecError(
                f"name has {name!r}, operator has {operator!r}: must be a network, one of {', '.join(NAMED)}."
            )
        width, grid = 96 if channels is None else channels, (56 if size is None else size,) * 2
        found = find(name, width, grid, networks=NAMED)
        made = card(found.layer, name=found.name, channels=width, size=grid, folder=folder, docs=found.docs)
        text, path = made.text, made.path
    _print(f"{text}\n\nIts picture: {path}")


def _network_card(
    name: str, operator: str | None, shape: tuple[int, int, int], outputs: int, folder: Path
) -> tuple[str, Path]:
    found = None if operator is None else find(operator, 64, shape[1:])
    network = named(name, None if found is None else found.layer)
    title = name if found is None else f"{name}-{found.name}"
    made = network_card(network, name=title, shape=shape, outputs=outputs, folder=folder)
    return made.text, made.path


def _print(text: str) -> None:
    Console(highlight=False).print(text, markup=False, soft_wrap=True)


def main() -> None:
    """Run `dynops`."""
    commands = {
        "zoo": zoo_command,
        "card": card_command,
        "report": report_command,
        "seeds": seeds_command,
        "worker": worker_command,
    }
    command(commands, "Local operators in parts, and ablations one can trust.")
