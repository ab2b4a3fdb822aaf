"""Training: what a record says, against plain torch; determinism; divergence; interruption."""

import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dynops import parameters, zoo
from dynops.data import Batches, Cifar10, Digits, SelectorShift
from dynops.errors import DataError, SpecError
from dynops.nets import Bare, ResidualNetwork
from dynops.records import RunRecord
from dynops.training import Recipe, environment, train
from dynops.training.images import kernel_images
from dynops.training.schedule import share_of_peak
from dynops.training.start import initialise


def bare_loop(network: nn.Module, data: Digits, recipe: Recipe, seed: int) -> list[dict[str, float]]:
    """The same training without Lightning and without dynops.training."""
    dataset = data.load(seed)
    learnt = Batches(dataset=dataset, split="train", batch_size=recipe.batch_size, device="cpu", seed=seed)
    weights = [p for p in network.parameters() if p.dim() > 1]
    rest = [p for p in network.parameters() if p.dim() <= 1]
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate)
    steps, step, history = recipe.epochs * len(learnt), 0, []
    for epoch in range(recipe.epochs):
        learnt.epoch = epoch
        losses = []
        network.train()
        for x, target in learnt:
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * share_of_peak(step, steps, recipe.warmup)
            loss = F.cross_entropy(network(x), target, label_smoothing=recipe.label_smoothing)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
            optimiser.step()
            losses.append(loss.item())
            step += 1
        network.eval()
        with torch.no_grad():
            output = network(dataset.normalise(dataset.test.inputs))
        history.append(
            {
                "train_loss": sum(losses) / len(losses),
                "loss": float(F.cross_entropy(output, dataset.test.targets)),
                "accuracy": float((output.argmax(1) == dataset.test.targets).float().mean()),
            }
        )
    return history


def test_training_equals_a_bare_loop(small: Any) -> None:
    recipe = replace(small.recipe, label_smoothing=0.1)
    record = train(small.network, small.data, recipe, 3, accelerator="cpu")
    network = small.network.build((1, 8, 8), 10)
    initialise(network, 3)
    for ours, plain in zip(record.history, bare_loop(network, small.data, recipe, 3), strict=True):
        assert {name: ours[name] for name in plain} == pytest.approx(plain, rel=1e-5)


def test_a_record_says_what_was_run_and_what_it_cost(small: Any) -> None:
    record = small.train()
    assert record.status == "complete"
    assert record.parameters == parameters(small.network.build((1, 8, 8), 10))
    assert record.macs > 0
    assert record.seconds > 0
    assert record.step_milliseconds > 0
    assert record.peak_memory > 2**20
    assert "1 threads" in record.device
    assert record.versions["torch"] == torch.__version__
    assert ResidualNetwork.from_plain(record.spec["network"]) == small.network
    assert Recipe.from_plain(record.spec["recipe"]) == small.recipe
    assert [epoch["epoch"] for epoch in record.history] == [1, 2, 3]
    assert RunRecord.from_json(record.to_json()) == record


def test_last_and_best_are_those_of_the_history(small: Any) -> None:
    record = small.train()
    assert record.metrics["accuracy"] == record.history[-1]["accuracy"]
    assert record.metrics["loss"] == record.history[-1]["loss"]
    assert record.metrics["best_accuracy"] == max(epoch["accuracy"] for epoch in record.history)
    assert record.metrics["best_loss"] == min(epoch["loss"] for epoch in record.history)


def test_a_seed_gives_the_same_losses_to_the_bit(small: Any) -> None:
    first = small.train()
    torch.rand(7)  # whatever the process drew before does not matter
    assert small.train().history == first.history
    assert replace(small, seed=1).train().history != first.history


def test_training_leaves_the_global_settings_alone(small: Any) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    small.train()
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_cells_that_differ_in_the_operator_start_equal_elsewhere() -> None:
    static = ResidualNetwork(operators=(zoo.depthwise(3),), depths=(1,), width=16).build((1, 8, 8), 10)
    dynamic = ResidualNetwork(operators=(zoo.involution(3),), depths=(1,), width=16).build((1, 8, 8), 10)
    for network in (static, dynamic):
        initialise(network, 4)
    shared = dict(static.named_parameters())
    compared = [name for name in dict(dynamic.named_parameters()) if name in shared]
    assert "stem.0.0.weight" in compared
    assert "head.2.bias" in compared
    for name, parameter in dynamic.named_parameters():
        if name in shared:
            assert torch.equal(parameter, shared[name]), name


def test_initial_weights_depend_on_the_seed_alone() -> None:
    networks = [
        ResidualNetwork(operators=(zoo.involution(3),), depths=(1,), width=16).build((1, 8, 8), 10) for _ in "abc"
    ]
    for network, seed in zip(networks, (1, 1, 2), strict=True):
        initialise(network, seed)
    one, same, other = (torch.cat([p.flatten() for p in network.parameters()]) for network in networks)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_run_that_leaves_the_finite_numbers_is_a_result(small: Any) -> None:
    wild = replace(small, recipe=replace(small.recipe, optimiser="sgd", learning_rate=1e30, clip=None, warmup=0.0))
    record = wild.train()
    assert record.status == "diverged"
    assert record.accepted
    assert "after epoch 1" in record.reason
    assert record.metrics["accuracy"] == 0.1
    assert record.metrics["loss"] == pytest.approx(2.302585, rel=1e-6)


def test_a_regression_that_diverges_is_scored_as_the_mean_of_its_targets() -> None:
    recipe = Recipe(epochs=1, batch_size=8, optimiser="sgd", learning_rate=1e30, clip=None, warmup=0.0)
    data = SelectorShift(task="pixel", train=32, test=32)
    record = train(Bare(operator=zoo.depthwise(3)), data, recipe, 0, accelerator="cpu")
    dataset = data.load(0)
    judged = dataset.test.targets[..., dataset.mask]
    assert record.status == "diverged"
    assert record.metrics["loss"] == pytest.approx(float(((judged - judged.mean()) ** 2).mean()), rel=1e-5)


def test_a_regression_is_judged_on_its_mask_only() -> None:
    data = SelectorShift(task="marker", train=64, test=32)
    recipe = Recipe(epochs=1, batch_size=32, learning_rate=1e-9)
    record = train(Bare(operator=zoo.depthwise(3)), data, recipe, 0, accelerator="cpu")
    network = Bare(operator=zoo.depthwise(3)).build((16, 18, 18), 8)
    initialise(network, 0)
    dataset = data.load(0)
    with torch.no_grad():
        output = network(dataset.test.inputs)
    expected = (output - dataset.test.targets)[..., dataset.mask].square().mean()
    assert record.metrics["loss"] == pytest.approx(float(expected), rel=1e-4)
    assert "accuracy" not in record.metrics


def test_sgd_learns_too(small: Any) -> None:
    recipe = Recipe(epochs=3, batch_size=32, optimiser="sgd", learning_rate=0.1)
    record = replace(small, recipe=recipe).train()
    assert record.history[-1]["train_loss"] < record.history[0]["train_loss"]


def test_the_learning_rate_of_an_epoch_ends_at_the_schedules_value(small: Any) -> None:
    record = small.train()
    steps = 3 * 3  # 100 images in whole batches of 32
    expected = [1e-2 * share_of_peak(step, steps, 0.1) for step in (3, 6, 9)]
    assert [epoch["learning_rate"] for epoch in record.history] == pytest.approx(expected)


def test_kernel_images_are_the_kernels_of_the_evaluated_inputs(small: Any) -> None:
    record = small.train(images=2)
    (layer,) = record.images["kernels"]
    assert layer == "stage1_block1.operator"
    assert torch.tensor(record.images["inputs"]).shape == (2, 1, 8, 8)
    assert torch.tensor(record.images["kernels"][layer]).shape == (2, 8, 8)
    dataset = small.data.load(0)
    network = small.network.build((1, 8, 8), 10).eval()
    seen: list[torch.Tensor] = []
    operator = network.get_submodule(layer)
    operator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    found = torch.tensor(kernel_images(network, dataset, 3)["kernels"][layer])
    _, kernel = operator(seen[0], return_kernel=True)
    assert torch.allclose(found, kernel.sum((1, 2, 3, 4)), rtol=1e-3)


def test_a_static_network_has_no_kernel_images(small: Any) -> None:
    static = replace(small.network, operators=(zoo.depthwise(3),))
    assert replace(small, network=static).train(images=2).images == {}


def test_ctrl_c_reaches_the_caller_as_such(small: Any) -> None:
    def interrupt(epoch: dict[str, float]) -> None:
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        small.train(on_epoch=interrupt)
    assert signal.getsignal(signal.SIGINT) == handler


def test_an_exception_reaches_the_caller(small: Any) -> None:
    def fail(epoch: dict[str, float]) -> None:
        raise ZeroDivisionError("planted")

    with pytest.raises(ZeroDivisionError, match="planted"):
        small.train(on_epoch=fail)


def test_missing_data_say_how_to_get_them(tmp_path: Any) -> None:
    network = ResidualNetwork(operators=(zoo.depthwise(3),))
    with pytest.raises(DataError, match="cifar-10-batches-py"):
        train(network, Cifar10(), Recipe(), 0, root=tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs has 0: must be an integer of at least 1"),
        ({"batch_size": 0}, "batch_size has 0: must be an integer of at least 1"),
        ({"optimiser": "lion"}, "optimiser has 'lion': must be one of 'adamw', 'sgd'"),
        ({"learning_rate": 0.0}, "learning_rate has 0.0: must be positive"),
        ({"warmup": 1.0}, "warmup has 1.0: must be a share from 0 to below 1"),
        ({"momentum": -0.1}, "momentum has -0.1: must lie from 0 to below 1"),
        ({"weight_decay": -1.0}, "weight_decay has -1.0: must not be negative"),
        ({"label_smoothing": 1.0}, "label_smoothing has 1.0: must be a share from 0 to below 1"),
        ({"clip": 0.0}, "clip has 0.0: must be positive, or None"),
    ],
)
def test_a_recipe_says_which_field_is_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Recipe(**changes)


def test_an_accelerator_that_is_not_there_is_refused(small: Any) -> None:
    with pytest.raises(SpecError, match=r"^accelerator has 'tpu': must be one of 'auto', .*'cpu'\.$"):
        train(small.network, small.data, small.recipe, 0, accelerator="tpu")


@pytest.mark.gpu
def test_a_gpu_trains_in_mixed_precision(small: Any) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    record = train(small.network, small.data, small.recipe, 0)
    assert torch.cuda.get_device_name() == record.device
    assert record.status == "complete"


def test_a_commit_is_that_of_a_checkout_of_dynops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy = tmp_path / "environment.py"
    copy.write_text("")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(environment, "__file__", str(copy))
    assert environment.commit.__wrapped__() == ""
    run = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run([*run, "add", "."], check=True)
    subprocess.run([*run, "commit", "-qm", "first"], check=True)
    head = environment.commit.__wrapped__()
    assert len(head) == 12
    copy.write_text("changed")
    assert environment.commit.__wrapped__() == head + "+"


def test_a_run_is_evaluated_as_often_as_asked_and_learns_the_same() -> None:
    network, data = (
        ResidualNetwork(operators=(zoo.involution(kernel_size=3),), depths=(1,), width=16),
        Digits(fraction=0.1),
    )
    recipe = Recipe(epochs=4, batch_size=32)
    often = train(network, data, recipe, 0)
    seldom = train(network, data, replace(recipe, evaluate_every=2), 0)
    assert [entry["epoch"] for entry in seldom.history] == [2, 4]
    for name in ("loss", "accuracy"):
        assert [entry[name] for entry in seldom.history] == [often.history[place][name] for place in (1, 3)]
    losses = [entry["train_loss"] for entry in often.history]
    assert [entry["train_loss"] for entry in seldom.history] == pytest.approx(
        [(losses[0] + losses[1]) / 2, (losses[2] + losses[3]) / 2]
    )


def test_the_last_epoch_is_evaluated() -> None:
    with pytest.raises(
        SpecError, match=r"evaluate_every has 3, epochs has 4: must be a divisor.*Divisors of 4: 1, 2, 4"
    ):
        Recipe(epochs=4, evaluate_every=3)
