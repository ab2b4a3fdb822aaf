"""What was done to studies, and was anything lost or counted twice? The table of what the fault tests found.

make faults
"""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from dynops.ablation.reporting.tables import Table
from dynops.cli import command
from dynops.errors import SpecError
from dynops.records import write_atomically
from dynops.training.environment import commit, versions

FIELDS = ("faults", "expected", "found", "twice")


def read(file: Path) -> list[dict[str, Any]]:
    """Read what the tests wrote with `--faults`; a line that is there twice counts once.

    Raises:
        SpecError: there is no such file, or it holds something else.
    """
    try:
        found = list(dict.fromkeys(file.read_text().splitlines()))
        rows = [json.loads(line) for line in found]
        return [{key: row[key] for key in ("file", "test", *FIELDS)} for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpecError(f"{file} has no faults ({error!r}): must be what pytest wrote with `--faults`.") from error


def sentence(test: str) -> str:
    """Say what a test did.

    >>> sentence("test_a_study_goes_on_after_a_kill[in the middle of a run-1]")
    'A study goes on after a kill: in the middle of a run, 1'
    """
    name, _, parameters = test.removeprefix("test_").partition("[")
    said = name.replace("_", " ").capitalize()
    return f"{said}: {parameters.removesuffix(']').replace('-', ', ')}" if parameters else said


def table(rows: list[dict[str, Any]]) -> Table:
    """List what was done to each study and what was found."""
    total = {key: sum(row[key] for row in rows) for key in FIELDS}
    lines = [(row["file"].removeprefix("test_"), sentence(row["test"]), row) for row in rows]
    return Table(
        title="Faults, and what was found after them",
        columns=("tests", "what is shown", "faults", "records expected", "found", "twice"),
        sides="llrrrr",
        rows=(
            *((place.replace("_", " "), said, *(str(row[key]) for key in FIELDS)) for place, said, row in lines),
            ("all", "", *(str(total[key]) for key in FIELDS)),
        ),
    )


def markdown(rows: list[dict[str, Any]]) -> str:
    """Write the table as a page of Markdown."""
    made, found = table(rows), versions()
    head = f"Commit {commit() or '-'}; python {found['python']}, optuna {found['optuna']}, torch {found['torch']}."
    return f"# {made.title}\n\n{head}\n\n{made.to_markdown()}\n"


def main(file: Path, folder: Path = Path("studies/results/faults")) -> None:
    """Write `faults.md`.

    Args:
        file: what the tests wrote with `--faults FILE`.
        folder: where the table goes.
    """
    write_atomically(folder / "faults.md", markdown(read(file)))
    Console(highlight=False).print(f"Kept: {folder / 'faults.md'}", soft_wrap=True)


if __name__ == "__main__":
    command(main, "The table of what the fault tests found.")
