"""The notebooks run from top to bottom without an error or a warning, and what is stored in them is such a run.

    python tests/test_notebooks.py --root ../shared/data 02_cnn_vs_inn

runs notebooks as they are, with CIFAR-10 from the root, and stores their outputs; all of them where none is named.
"""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
SMALL: dict[str, dict[str, Any]] = {
    "01_compose": {},
    "02_cnn_vs_inn": {"epochs": 2, "evaluate_every": 1, "seeds": 3, "images": 3},
    "03_kernels": {"epochs": 1, "tested": 100},
    "04_read_a_study": {},
}
"""Settings with which a notebook runs in seconds; where no CIFAR-10 is found, on digits."""
MOST = 1_000_000
"""Bytes of a notebook."""
WIDGET = "application/vnd.jupyter.widget-view+json"
"""What a progress bar leaves, which says nothing once it has ended."""


def execute(notebook: NotebookNode, parameters: Mapping[str, Any], *, root: Path, folder: Path) -> NotebookNode:
    """Run a notebook in its folder with other parameters; its own stay what is written in it.

    Args:
        notebook: one cell, tagged `parameters`, holds assignments, one a line.
        parameters: what is assigned after those.
        root: assigned as well, where the notebook reads data sets.
        folder: assigned as well, where it keeps runs.
    Raises:
        CellExecutionError: a cell raised an exception.
    """
    (cell,) = (each for each in notebook.cells if "parameters" in each.metadata.get("tags", ()))
    own = cell.source
    known = re.findall(r"^(\w+) = ", own, flags=re.MULTILINE)
    places = {name: str(place.resolve()) for name, place in (("root", root), ("folder", folder)) if name in known}
    assert set(parameters) <= set(known), f"the cell of parameters has {known}"
    cell.source = "\n".join([own, *(f"{name} = {value!r}" for name, value in {**parameters, **places}.items())])
    beside = {"metadata": {"path": str(NOTEBOOKS)}}
    NotebookClient(notebook, timeout=None, record_timing=False, resources=beside).execute()
    cell.source = own
    return notebook


def read(name: str) -> NotebookNode:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def tables(notebook: NotebookNode) -> list[str]:
    return [each.data["text/markdown"] for each in outputs(notebook) if "text/markdown" in each.get("data", {})]


def warned(notebook: NotebookNode) -> list[str]:
    """What went to standard error: warnings, and what a library has to complain about."""
    return [each.text for each in outputs(notebook) if each.output_type == "stream" and each.name == "stderr"]


def store(names: list[str], root: Path) -> None:
    """Run notebooks as they are, from an empty folder, and store them with their outputs."""
    for name in names:
        with TemporaryDirectory() as folder:
            notebook = execute(read(name), {}, root=root, folder=Path(folder))
        notebook.metadata.pop("widgets", None)
        for each in notebook.cells:
            if each.cell_type == "code":
                each.outputs = [output for output in each.outputs if WIDGET not in output.get("data", {})]
        nbformat.write(notebook, NOTEBOOKS / f"{name}.ipynb")


def test_each_notebook_is_tested() -> None:
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == sorted(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs_without_errors_and_warnings(name: str, tmp_path: Path) -> None:
    made = execute(read(name), SMALL[name], root=tmp_path / "data", folder=tmp_path / "runs")
    assert not warned(made)
    assert any("image/png" in output.get("data", {}) for output in outputs(made))
    if not SMALL[name]:  # it ran as it is stored
        assert tables(made) == tables(read(name)), f"store it anew: python tests/test_notebooks.py {name}"


@pytest.mark.parametrize("name", SMALL)
def test_a_stored_notebook_is_a_whole_run(name: str) -> None:
    notebook = read(name)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "store it anew"
    assert not warned(notebook)
    assert not [output for output in outputs(notebook) if output.output_type == "error"]


@pytest.mark.parametrize("name", SMALL)
def test_a_stored_notebook_is_small_and_names_no_place_of_a_machine(name: str) -> None:
    text = (NOTEBOOKS / f"{name}.ipynb").read_text()
    assert len(text) < MOST
    said = [output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs(read(name))]
    sources = [cell.source for cell in read(name).cells]
    assert not re.findall(r"(?:^|[\s'\"(])(?:/[\w.-]+){2,}|[A-Z]:\\\S+", "\n".join(said + sources))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run notebooks and store their outputs.")
    parser.add_argument("names", nargs="*", default=list(SMALL), help="which notebooks; all by default")
    parser.add_argument("--root", type=Path, default=NOTEBOOKS.parent / "data", help="folder of the data sets")
    options = parser.parse_args()
    store(options.names, options.root)
