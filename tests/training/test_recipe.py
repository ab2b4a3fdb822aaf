"""What a recipe asks for: a moving average, batches in parts, memory order, precision, and the way of the warm-up."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dynops import zoo
from dynops.data import Augmentation, Dataset, Digits
from dynops.errors import SpecError
from dynops.nets import KerasCNN, Network, ResidualNetwork
from dynops.specs import spec
from dynops.training import Recipe, recipes, train, train_together
from dynops.training.ema import Ema
from dynops.training.schedule import share_of_peak
from dynops.training.settings import precision_of


@spec
class WithoutNorm(Network):
    """A convolutional classifier whose images do not see each other."""

    def build(self, shape: tuple[int, int, int], outputs: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(shape[0], 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, outputs)
        )


@spec
class Coloured(Digits):
    """Digits of three colours, so that it matters which axis of an image is innermost."""

    def load(self, seed: int, **options: Any) -> Dataset:
        dataset = Digits.load(self, seed, **options)
        parts = {
            name: replace(part, inputs=part.inputs.repeat(1, 3, 1, 1))
            for name, part in (("train", dataset.train), ("test", dataset.test))
        }
        return replace(dataset, **parts, mean=dataset.mean * 3, std=dataset.std * 3)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """Have a function called with the module, its inputs and its output, at each forward pass of `WithoutNorm`."""
    build = WithoutNorm.build

    def by(hook: Callable[..., None]) -> None:
        def watched(self: WithoutNorm, *arguments: Any) -> nn.Module:
            network = build(self, *arguments)
            network.register_forward_hook(hook)
            return network

        monkeypatch.setattr(WithoutNorm, "build", watched)

    return by


def changed(small: Any, **fields: Any) -> Any:
    return replace(small, recipe=replace(small.recipe, **fields))


def test_a_recipe_from_before_its_newest_fields_is_the_same_value() -> None:
    recipe = Recipe(epochs=3, batch_size=32, learning_rate=1e-2)
    assert recipe.to_plain() == {"type": "Recipe", "epochs": 3, "batch_size": 32, "learning_rate": 0.01}
    assert recipe.fingerprint() == "3dbf1e9a1ebe"  # as it was in stored records


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accumulate": 0}, "^accumulate has 0: must be an integer of at least 1"),
        (
            {"accumulate": 3},
            r"^accumulate has 3, batch_size has 128: must be a divisor, so that the parts are equal\. .*: 1, 2, 4, .*",
        ),
        ({"warmup": 1.0}, "^warmup has 1.0: must be a share from 0 to below 1, or a number of steps, which is an int"),
        ({"warmup": -1}, "^warmup has -1: must be a share"),
        ({"warmup_from": 1.1}, "^warmup_from has 1.1: must be a share from 0 to 1"),
        ({"mixup": -0.1}, "^mixup has -0.1: must not be negative"),
        ({"cutmix": -1.0}, "^cutmix has -1.0: must not be negative"),
        ({"ema": 1.0}, "^ema has 1.0: must lie between 0 and 1, or be None"),
        ({"precision": "float8"}, "^precision has 'float8': must be one of 'auto', 'float32', 'bfloat16'"),
        ({"channels_last": 1.5}, "^channels_last has 1.5: must be one of False, True"),
    ],
)
def test_a_recipe_says_which_field_is_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Recipe(**changes)


def test_a_warm_up_is_a_share_or_a_number_of_steps() -> None:
    shares = [share_of_peak(step, 40, 0.25) for step in range(41)]
    assert shares == [share_of_peak(step, 40, 10) for step in range(41)]
    assert Recipe.from_json(Recipe(warmup=3130).to_json()).warmup == 3130


def test_a_warm_up_rises_in_equal_steps_from_its_start() -> None:
    rates = [share_of_peak(step, 100, 30, 0.25) for step in range(30)]
    assert rates[0] == pytest.approx(0.25 + 0.75 / 30)
    assert rates[-1] == 1.0
    assert [b - a for a, b in pairwise(rates)] == pytest.approx([0.025] * 29)
    assert share_of_peak(30, 100, 30, 0.25) == share_of_peak(30, 100, 30) == 1.0


def test_a_training_follows_its_warm_up(small: Any) -> None:
    rates = [epoch["learning_rate"] for epoch in changed(small, warmup=6, warmup_from=0.5).train().history]
    assert rates == pytest.approx([1e-2 * share_of_peak(step, 9, 6, 0.5) for step in (3, 6, 9)])


def test_a_training_that_is_all_warm_up_is_refused(small: Any) -> None:
    message = r"^warmup has 9 steps, the training has 9: must have more\. Give the warm-up as a share, such as 0\.1\.$"
    with pytest.raises(SpecError, match=message):
        changed(small, warmup=9).train()


def test_the_moving_average_is_that_of_torch() -> None:
    network = KerasCNN().build((3, 32, 32), 10)
    network.register_buffer("places", torch.tensor([7, 5]))
    theirs = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    theirs.update_parameters(network)
    ours = Ema(network, 0.9)
    for _ in range(4):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += torch.randn_like(parameter)
        network.get_buffer("places").add_(1)
        theirs.update_parameters(network)
        ours.follow(network)
    for (name, own), other in zip(ours.network.named_parameters(), theirs.module.parameters(), strict=True):
        assert torch.allclose(own, other), name
        assert not own.requires_grad
    assert ours.network.get_buffer("places").tolist() == [11, 9]


def test_running_statistics_are_averaged_too() -> None:
    network = nn.BatchNorm1d(2)
    expected, ours = network.running_mean.clone(), Ema(network, 0.75)
    for _ in range(3):
        network(torch.randn(8, 2) + 4)
        ours.follow(network)
        expected = 0.75 * expected + 0.25 * network.running_mean
    assert torch.allclose(ours.network.running_mean, expected)
    assert ours.network.num_batches_tracked == 3


def test_the_moving_average_is_what_is_evaluated_and_kept(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[nn.Module] = []
    build = ResidualNetwork.build

    def kept(self: ResidualNetwork, *arguments: Any) -> nn.Module:
        made.append(build(self, *arguments))
        return made[-1]

    monkeypatch.setattr(ResidualNetwork, "build", kept)
    plain, record = small.train(), changed(small, ema=0.8).train(averaged=("h w",), images=1)
    assert [epoch["train_loss"] for epoch in record.history] == [epoch["train_loss"] for epoch in plain.history]
    assert record.history[-1]["loss"] != plain.history[-1]["loss"]
    assert record.parameters == plain.parameters
    dataset = small.data.load(0)
    with torch.no_grad():
        output = made[1].eval()(dataset.normalise(dataset.test.inputs))
    loss = float(nn.functional.cross_entropy(output, dataset.test.targets))
    assert record.metrics["loss"] == pytest.approx(loss, rel=1e-5)
    assert record.metrics["loss_averaged_hw"] != pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("recipe", [Recipe(optimiser="adamw"), Recipe(optimiser="sgd", label_smoothing=0.1)])
@pytest.mark.parametrize("parts", [2, 16])
def test_a_batch_in_parts_is_the_batch(recipe: Recipe, parts: int, watch: Callable[..., None]) -> None:
    recipe = replace(recipe, epochs=2, batch_size=32, learning_rate=1e-2)
    data = Digits(fraction=0.1, augmentation=Augmentation(crop=1))
    whole = train(WithoutNorm(), data, recipe, 0, accelerator="cpu")
    sizes: list[int] = []
    watch(lambda network, inputs, output: sizes.append(len(output)) if network.training else None)
    split = train(WithoutNorm(), data, replace(recipe, accumulate=parts), 0, accelerator="cpu")
    for ours, expected in zip(split.history, whole.history, strict=True):
        assert ours == pytest.approx(expected, rel=1e-4)
    assert sizes == [32 // parts] * (2 * 3 * parts)


def test_a_batch_that_is_incomplete_is_weighed_by_its_images() -> None:
    data, recipe = Digits(fraction=0.02), Recipe(epochs=3, batch_size=32)  # 20 images: 3 parts of 8, 8 and 4
    whole = train(WithoutNorm(), data, recipe, 0, accelerator="cpu")
    split = train(WithoutNorm(), data, replace(recipe, accumulate=4), 0, accelerator="cpu")
    assert split.metrics == pytest.approx(whole.metrics, rel=1e-4)


def test_memory_order_changes_no_number(small: Any) -> None:
    plain, last = small.train(averaged=("h w",)), changed(small, channels_last=True).train(averaged=("h w",))
    assert last.metrics == pytest.approx(plain.metrics, rel=1e-3)


def test_weights_and_images_lie_with_the_channels_innermost(watch: Callable[..., None]) -> None:
    seen: list[bool] = []

    def look(network: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        for each in (network.get_parameter("2.weight"), inputs[0]):
            seen.append(each.is_contiguous(memory_format=torch.channels_last))

    watch(look)
    recipe = Recipe(epochs=1, batch_size=32, channels_last=True, ema=0.9)
    train(WithoutNorm(), Coloured(fraction=0.1), recipe, 0, accelerator="cpu")
    assert len(seen) > 2
    assert all(seen[:-2])  # the last pass counts the multiplications, of an image that lies otherwise


def test_seeds_that_train_together_have_no_memory_order(small: Any) -> None:
    recipe = replace(small.recipe, channels_last=True)
    with pytest.raises(SpecError, match=r"^recipe has channels_last=True: must be False for seeds that are trained to"):
        train_together(small.network, small.data, recipe, (0, 1), accelerator="cpu")


def test_seeds_that_train_together_have_their_own_averages(small: Any) -> None:
    recipe = replace(small.recipe, ema=0.8)
    for record in train_together(small.network, small.data, recipe, (0, 1), accelerator="cpu", averaged=("h w",)):
        own = train(small.network, small.data, recipe, record.seed, accelerator="cpu", averaged=("h w",))
        assert record.metrics == pytest.approx(own.metrics, rel=1e-4)


def test_bfloat16_is_used_where_it_is_asked_for(watch: Callable[..., None]) -> None:
    seen: list[torch.dtype] = []
    watch(lambda network, inputs, output: seen.append(output.dtype))
    recipe, data = Recipe(epochs=1, batch_size=32), Digits(fraction=0.1)
    for precision, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32), ("auto", torch.float32)):
        record = train(WithoutNorm(), data, replace(recipe, precision=precision), 0, accelerator="cpu")
        assert set(seen[:-1]) == {dtype}  # the last pass counts the multiplications
        assert record.status == "complete"
        seen.clear()


def test_precision_is_what_the_accelerator_trains_well_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    names = ("auto", "float32", "bfloat16")
    assert [precision_of(name, "cuda", False) for name in names] == ["bf16-mixed", "32-true", "bf16-mixed"]
    assert [precision_of(name, "cpu", False) for name in names] == ["32-true", "32-true", "bf16-mixed"]
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert [precision_of("auto", "cuda", together) for together in (False, True)] == ["16-mixed", "32-true"]


def test_all_of_it_goes_together() -> None:
    recipe = Recipe(
        epochs=2,
        batch_size=32,
        accumulate=2,
        warmup=4,
        warmup_from=0.25,
        mixup=0.2,
        cutmix=1.0,
        ema=0.9,
        channels_last=True,
        precision="bfloat16",
    )
    record, again = (train(WithoutNorm(), Coloured(fraction=0.1), recipe, 0, accelerator="cpu") for _ in range(2))
    assert record.status == "complete"
    assert Recipe.from_plain(record.spec["recipe"]) == recipe
    assert record.history == again.history


def test_the_recipe_of_imagenet_has_the_published_learning_rates() -> None:
    recipe = recipes.imagenet()
    steps = recipe.epochs * (1281167 // recipe.batch_size)
    rates = [
        recipe.learning_rate * share_of_peak(step, steps, recipe.warmup, recipe.warmup_from) for step in range(steps)
    ]
    for step, rate in enumerate(rates):
        cosine = 0.4 * (1 + math.cos(math.pi * (step // 625) / 130))  # the authors', which falls with each epoch
        theirs = cosine * (1 - 0.75 * (1 - step / 3130)) if step < 3130 else cosine
        assert rate == pytest.approx(theirs, abs=0.03), step
    assert max(rates) == rates[3129] == 0.8
    assert (recipe.optimiser, recipe.momentum, recipe.weight_decay, recipe.label_smoothing, recipe.clip) == (
        "sgd",
        0.9,
        1e-4,
        0.1,
        None,
    )


def test_the_recipe_of_cifar_learns() -> None:
    recipe = replace(recipes.cifar(epochs=5), batch_size=16, ema=0.9, compile=False)
    network = ResidualNetwork(operators=(zoo.depthwise(3),), depths=(1,), width=8)
    record = train(network, Digits(fraction=0.5), recipe, 0, accelerator="cpu")
    assert [epoch["epoch"] for epoch in record.history] == [5]
    assert record.metrics["accuracy"] > 0.5
    assert recipes.cifar() == recipes.cifar(24)
