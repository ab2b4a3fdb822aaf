"""The command line: a thin face over the layers below."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli
from rich.console import Console
from rich.text import Text

from dynops.ablation import Report, report
from dynops.errors import DynopsError


def command(functions: Callable[..., None] | dict[str, Any], description: str, args: list[str] | None = None) -> None:
    """Run functions as commands, their arguments as options; an error about the input ends with its message alone.

    Exit status: 0; 2 after an error about the input; 130 after Ctrl-C.

    Args:
        functions: one function, or functions by the name of their command.
        description: what the program does, in a sentence.
        args: the words of the command line; those of the process by default.
    """
    try:
        auto_cli(functions, args, description=description)
    except DynopsError as error:
        Console(stderr=True).print(f"Error: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def show(made: Report) -> None:
    """Print the tables and verdicts of a report, and how to look at the rest."""
    console = Console(highlight=False)
    for table in made.tables():
        console.print(table)
    for headline, rest in made.verdicts():
        console.print(Text.assemble((headline, "bold"), f": {rest}"))
    lines = [
        f"\nThe whole report: {made.folder / 'report.md'}",
        f"In TensorBoard: tensorboard --logdir {made.folder / 'tensorboard'}",
        *(f"  {name}: {address}" for name, address in made.pages().items()),
    ]
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def report_command(folder: Path) -> None:
    """Make a study's report, figures and TensorBoard files anew from its records.

    Args:
        folder: the study's folder.
    """
    show(report(folder))


def main() -> None:
    """Run `dynops`."""
    command({"report": report_command}, "Local operators in parts, and ablations one can trust.")
