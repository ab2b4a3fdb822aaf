"""The house's plan holds: imports point down only, heavy libraries stay where they belong."""

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = (
    {"errors", "axes", "streams", "specs", "records"},
    {"ops"},
    {"parts"},
    {"nets", "data"},
    {"cards", "training"},
    {"ablation"},
    {"cli"},
)
CONFINED = {
    "lightning": {"training"},
    "optuna": {"ablation"},
    "tensorboard": {"ablation"},
    "filelock": {"ablation"},
    "matplotlib": {"ablation", "cards"},
    "scipy": {"ablation"},
    "statsmodels": {"ablation"},
    "sklearn": {"data"},
    "PIL": {"data"},
    "jsonargparse": {"cli"},
    "triton": {"ops"},
}
NO_TRAINING = {"ablation"}  # a study is handed the function that trains


def modules() -> dict[str, set[str]]:
    """Every module of dynops with the names that it imports."""
    found = {}
    for path in sorted((ROOT / "dynops").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        imported: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        found[name] = imported
    return found


def layer_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


MODULES = modules()
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}
EDGES = [
    (module, target)
    for module, imported in MODULES.items()
    for target in imported
    if target in MODULES and target != module
]


def test_every_module_has_a_layer() -> None:
    assert {layer_of(module) for module in MODULES} - {""} == set(RANKS)


def test_imports_point_down_only() -> None:
    wrong = [
        (module, target)
        for module, target in EDGES
        if layer_of(module) and layer_of(module) != layer_of(target)
        if not layer_of(target) or RANKS[layer_of(module)] <= RANKS[layer_of(target)] > 0
    ]
    assert not wrong


def test_nothing_imports_the_package_root() -> None:
    assert not [module for module, target in EDGES if target == "dynops"]


def test_there_is_no_circle_of_imports() -> None:
    graph: dict[str, set[str]] = {}
    for module, target in EDGES:
        if not module.startswith(f"{target}."):  # a package's face imports its modules; they do not import it
            graph.setdefault(module, set()).add(target)
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"imports go in a circle: {' -> '.join(error.args[1])}")


def test_a_study_is_handed_what_trains() -> None:
    assert not [edge for edge in EDGES if layer_of(edge[0]) in NO_TRAINING and layer_of(edge[1]) == "training"]


@pytest.mark.parametrize("library", CONFINED)
def test_a_library_stays_in_its_layer(library: str) -> None:
    users = {
        layer_of(module)
        for module, imported in MODULES.items()
        for name in imported
        if name.split(".")[0] == library or (name.startswith("torch.utils.tensorboard") and library == "tensorboard")
    }
    assert users == CONFINED[library]


def test_the_package_does_not_know_its_studies() -> None:
    assert not [module for module, imported in MODULES.items() if any(i.split(".")[0] == "studies" for i in imported)]


def test_operators_and_networks_need_no_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {re.split(r"[\[><=]", each)[0].replace("-", "_") for each in extras["studies"]}
    heavy = {"scikit_learn": "sklearn", "pillow": "PIL"}
    blocked = sorted(heavy.get(name, name) for name in named - {"filelock"})  # torch needs filelock itself
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked}))\n"
        "import torch; from dynops import zoo; from dynops.nets import KerasINN, ResidualNetwork\n"
        "network = ResidualNetwork(operators=(zoo.involution(3, 8),), width=8).build((3, 16, 16), 10)\n"
        "print(tuple(network(torch.zeros(2, 3, 16, 16)).shape))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.stdout.strip() == "(2, 10)", run.stderr


def test_importing_dynops_stays_light() -> None:
    heavy = ("lightning", "optuna", "tensorboard", "matplotlib", "sklearn", "scipy", "statsmodels", "torchmetrics")
    code = f"import dynops, sys; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "[]"
