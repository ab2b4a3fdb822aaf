"""Compiled steps learn what plain ones learn."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from dynops import Channels, Dynamic, Static, zoo
from dynops.data import Digits
from dynops.errors import SpecError
from dynops.nets import Network, ResidualNetwork
from dynops.specs import spec
from dynops.training import Recipe, train, train_together

DATA = Digits(fraction=0.1)
PLAIN = Recipe(epochs=2, batch_size=32, learning_rate=1e-2)
COMPILED = replace(PLAIN, compile=True)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, from its own compiler


@spec
class Shallow(Network):
    """A linear classifier, which is compiled in seconds."""

    def build(self, shape: tuple[int, int, int], outputs: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))


def residual(**changes: Any) -> ResidualNetwork:
    operator = replace(zoo.involution(3), channels=Channels("(g s)", s=4), **changes)
    return ResidualNetwork(operators=(operator,), depths=(1,), width=8)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Trace without making code, which takes minutes for a network; return how compilation was asked for."""
    seen: list[dict[str, Any]] = []
    real = torch.compile

    def trace(function: Any, **options: Any) -> Any:
        seen.append(options)
        return real(function, backend="aot_eager", fullgraph=options["fullgraph"], dynamic=options["dynamic"])

    monkeypatch.setattr(torch, "compile", trace)
    return seen


def test_compiled_losses_equal_plain_ones() -> None:
    plain = train(Shallow(), DATA, PLAIN, 0, accelerator="cpu")
    compiled = train(Shallow(), DATA, COMPILED, 0, accelerator="cpu")
    for ours, expected in zip(compiled.history, plain.history, strict=True):
        assert ours == pytest.approx(expected, rel=1e-4)
    assert compiled.spec["recipe"]["compile"] is True
    assert "compile" not in plain.spec["recipe"]  # what was kept before there was a choice stays as it was


@pytest.mark.parametrize("kernel", [Static(), Dynamic(context="pixel")])
def test_a_step_is_one_graph(kernel: Any, calls: list[dict[str, Any]]) -> None:
    plain = train(residual(kernel=kernel), DATA, PLAIN, 0, accelerator="cpu")
    compiled = train(residual(kernel=kernel), DATA, COMPILED, 0, accelerator="cpu")
    assert compiled.metrics == pytest.approx(plain.metrics, rel=1e-4)
    assert calls == [{"fullgraph": True, "dynamic": False, "mode": "default"}]


def test_a_step_of_several_seeds_is_one_graph(calls: list[dict[str, Any]]) -> None:
    plain = train_together(residual(kernel=Static()), DATA, PLAIN, (0, 1), accelerator="cpu")
    compiled = train_together(residual(kernel=Static()), DATA, COMPILED, (0, 1), accelerator="cpu")
    for ours, expected in zip(compiled, plain, strict=True):
        assert ours.metrics == pytest.approx(expected.metrics, rel=1e-4)
    assert len(calls) == 1


def test_a_checkpoint_has_the_same_names_with_compilation(calls: list[dict[str, Any]], tmp_path: Any) -> None:
    names = []
    for recipe, folder in ((PLAIN, tmp_path / "plain"), (COMPILED, tmp_path / "compiled")):
        train(residual(), DATA, recipe, 0, accelerator="cpu", folder=folder)
        names.append(list(torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]))
    assert names[0] == names[1]
    assert len(calls) == 1


def test_a_choice_that_is_none_is_refused() -> None:
    with pytest.raises(SpecError, match=r"^compile has 'max': must be one of False, True\.$"):
        Recipe(compile="max")  # type: ignore[arg-type]


@pytest.mark.gpu
def test_a_gpu_replays_graphs() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    with torch.profiler.profile() as profiled:
        compiled = train(residual(), DATA, replace(COMPILED, epochs=6), 0)
    assert any("cudaGraphLaunch" in event.key for event in profiled.key_averages())
    plain = train(residual(), DATA, replace(PLAIN, epochs=6), 0)
    assert compiled.metrics["loss"] == pytest.approx(plain.metrics["loss"], rel=0.05)
