"""A trained network evaluated again with its kernels averaged: metrics in its record, by every way of training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dynops import zoo
from dynops.data import Digits, SelectorShift
from dynops.errors import SpecError
from dynops.nets import Bare, ResidualNetwork
from dynops.parts.kernel import Term, sum_terms
from dynops.training import Experiment, Recipe, train, train_together
from dynops.training.outcome import trivial

BOTH = ("h w", "b h w")
NAMES = {f"{name}_averaged_{axes}" for name in ("accuracy", "loss") for axes in ("hw", "bhw")}


def test_metrics_are_those_of_the_trained_network_with_mean_kernels(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[nn.Module] = []
    build = ResidualNetwork.build

    def kept(self: ResidualNetwork, *arguments: Any) -> nn.Module:
        made.append(build(self, *arguments))
        return made[-1]

    monkeypatch.setattr(ResidualNetwork, "build", kept)
    record = replace(small, data=Digits()).train(averaged=BOTH)
    (network,) = made
    dataset = small.data.load(0)
    x, targets = dataset.normalise(dataset.test.inputs), dataset.test.targets

    kernel = network.get_submodule("stage1_block1.operator.kernel")
    kernel.sum = lambda context, given, value, window, offsets: sum_terms(
        [Term(kernel(context, given), None)], value, window, offsets
    )
    for axes, name in (((5, 6), "hw"), ((0, 5, 6), "bhw")):
        hook = kernel.register_forward_hook(lambda kernel, inputs, output, axes=axes: output.mean(axes, keepdim=True))
        with torch.no_grad():
            y = torch.cat([network(batch) for batch in x.split(500)])
        hook.remove()
        loss, accuracy = float(F.cross_entropy(y, targets)), float((y.argmax(1) == targets).float().mean())
        assert record.metrics[f"loss_averaged_{name}"] == pytest.approx(loss, rel=1e-5)
        assert record.metrics[f"accuracy_averaged_{name}"] == pytest.approx(accuracy)
        assert loss != pytest.approx(record.metrics["loss"], rel=1e-2)


def test_all_else_in_the_record_is_as_without_them(small: Any) -> None:
    with_them, plain = small.train(averaged=BOTH, images=1), small.train(images=1)
    assert with_them.metrics.keys() - plain.metrics.keys() == NAMES
    assert {name: with_them.metrics[name] for name in plain.metrics} == plain.metrics
    assert (with_them.history, with_them.images) == (plain.history, plain.images)
    assert with_them.spec == plain.spec


def test_a_static_network_is_worth_the_same(small: Any) -> None:
    static = replace(small.network, operators=(zoo.depthwise(3),))
    record = replace(small, network=static).train(averaged=BOTH)
    for name in ("accuracy", "loss"):
        for axes in ("hw", "bhw"):
            assert record.metrics[f"{name}_averaged_{axes}"] == pytest.approx(record.metrics[name])


def test_seeds_that_train_together_have_the_metrics_of_their_own_runs(small: Any) -> None:
    records = train_together(small.network, small.data, small.recipe, (0, 1), accelerator="cpu", averaged=BOTH)
    for record in records:
        own = replace(small, seed=record.seed).train(averaged=BOTH)
        assert record.metrics == pytest.approx(own.metrics, rel=1e-4)


def test_an_experiment_passes_them_on_and_a_regression_has_losses_alone() -> None:
    data, recipe = SelectorShift(task="pixel", train=32, test=32), Recipe(epochs=1, batch_size=16)
    experiment = Experiment(network=Bare(operator=zoo.involution(3, 8)), data=data, recipe=recipe)
    metrics = experiment.run(0, accelerator="cpu", averaged=("h w",)).metrics
    assert {name for name in metrics if "averaged" in name} == {"loss_averaged_hw"}


def test_a_run_that_diverged_has_the_score_of_a_trivial_guess(small: Any) -> None:
    wild = replace(small.recipe, optimiser="sgd", learning_rate=1e30, clip=None, warmup=0.0)
    record = replace(small, recipe=wild).train(averaged=("b h w",))
    assert record.status == "diverged"
    assert record.metrics == trivial(small.data.load(0), ("b h w",))
    assert record.metrics["accuracy_averaged_bhw"] == 0.1
    assert record.metrics["loss_averaged_bhw"] == record.metrics["loss"]


def test_a_run_that_was_over_is_evaluated_from_its_checkpoint(small: Any, tmp_path: Path) -> None:
    first = small.train(folder=tmp_path, averaged=BOTH)
    again = small.train(folder=tmp_path, averaged=BOTH)
    assert again.metrics == first.metrics


def test_other_axes_are_refused_before_anything_runs(small: Any) -> None:
    with pytest.raises(SpecError, match=r"^averaged has 'w': must be one of 'h w', 'b h w'\.$"):
        train(small.network, small.data, small.recipe, 0, averaged=("w",))
