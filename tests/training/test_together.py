"""Several seeds as one program: each ends as its own run does, whatever happens to the others."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynops import Channels, Dynamic, Kernel, Static, zoo
from dynops.data import Augmentation, Dataset, Digits, SelectorShift
from dynops.errors import SpecError
from dynops.nets import Bare, Network, ResidualNetwork
from dynops.records import RunRecord
from dynops.specs import spec
from dynops.training import Recipe, checkpoint, train, train_together
from dynops.training.start import initialise
from dynops.training.together import Together, clip_each

SEEDS = (3, 0, 7)
SHARED = Channels("(g s)", s=4)
SHAKEN = Digits(fraction=0.1, augmentation=Augmentation(crop=1, flip=True))
ADAMW = Recipe(epochs=2, batch_size=32, learning_rate=1e-2, weight_decay=3.0, clip=0.3, label_smoothing=0.1)
SGD = replace(ADAMW, optimiser="sgd", learning_rate=0.1)


def network(kernel: Kernel, channels: Channels = SHARED) -> ResidualNetwork:
    operator = replace(zoo.involution(3), kernel=kernel, channels=channels)
    return ResidualNetwork(operators=(operator,), depths=(1,), width=8)


STATIC = network(Static())


def together(network: Network, data: Any, recipe: Recipe, seeds: Sequence[int] = SEEDS, **options: Any) -> Any:
    return train_together(network, data, recipe, seeds, accelerator="cpu", **options)


def check_equal(ours: RunRecord, own: RunRecord) -> None:
    """All that does not tell the time is equal, up to the rounding of sums."""
    assert (ours.seed, ours.status, ours.reason) == (own.seed, own.status, own.reason)
    assert (ours.parameters, ours.macs, ours.spec) == (own.parameters, own.macs, own.spec)
    assert ours.metrics == pytest.approx(own.metrics, rel=1e-4)
    assert len(ours.history) == len(own.history)
    for epoch, own_epoch in zip(ours.history, own.history, strict=True):
        assert epoch == pytest.approx(own_epoch, rel=1e-4)


@spec
class Spoilt(Digits):
    """Digits of which one seed's are spoilt."""

    seed: int
    value: float = float("inf")

    def load(self, seed: int, **options: Any) -> Dataset:
        dataset = Digits.load(self, seed, **options)
        if seed != self.seed:
            return dataset
        return replace(dataset, train=replace(dataset.train, inputs=dataset.train.inputs * self.value))


@spec
class Uneven(Digits):
    """Digits of which each seed has another number."""

    def load(self, seed: int, **options: Any) -> Dataset:
        dataset = Digits.load(self, seed, **options)
        kept = torch.arange(len(dataset.train) - seed)
        return replace(dataset, train=dataset.train.take(kept))


class Peeking(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x if self.training and x.sum().item() > 1e9 else x


@spec
class Odd(Network):
    """A classifier with a layer that is asked for by name."""

    layer: str

    def build(self, shape: tuple[int, int, int], outputs: int) -> nn.Module:
        layer = {"peeking": Peeking(), "misfit": nn.Linear(3, 3)}[self.layer]
        return nn.Sequential(nn.Sequential(nn.Flatten(), layer), nn.Linear(64, outputs))


KERNELS = [Static(), Dynamic(context="constant"), Dynamic(context="pixel")]


@pytest.mark.parametrize("recipe", [ADAMW, SGD], ids=["adamw", "sgd"])
@pytest.mark.parametrize("channels", [Channels("g"), SHARED], ids=["per channel", "grouped"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_each_seed_ends_as_its_own_run(kernel: Kernel, channels: Channels, recipe: Recipe) -> None:
    records = together(network(kernel, channels), SHAKEN, recipe)
    assert [record.seed for record in records] == list(SEEDS)
    for record in records:
        check_equal(record, train(network(kernel, channels), SHAKEN, recipe, record.seed, accelerator="cpu"))
    assert len({record.metrics["loss"] for record in records}) == len(SEEDS)


def test_a_masked_regression_of_each_seed_ends_as_its_own_run() -> None:
    data, recipe = SelectorShift(task="marker", train=64, test=32), Recipe(epochs=2, batch_size=16, clip=None)
    for record in together(Bare(operator=zoo.depthwise(3)), data, recipe):
        check_equal(record, train(Bare(operator=zoo.depthwise(3)), data, recipe, record.seed, accelerator="cpu"))


def test_the_order_of_the_seeds_does_not_matter() -> None:
    records = {record.seed: record for record in together(STATIC, SHAKEN, ADAMW)}
    for record in together(STATIC, SHAKEN, ADAMW, sorted(SEEDS)):
        check_equal(record, records[record.seed])


def test_a_seed_that_diverges_leaves_the_others_as_they_are() -> None:
    data = Spoilt(fraction=0.1, seed=SEEDS[1])
    records = together(STATIC, data, ADAMW)
    assert [record.status for record in records] == ["complete", "diverged", "complete"]
    assert records[1].reason == "train_loss was nan after epoch 1"
    for record in records:
        check_equal(record, train(STATIC, data, ADAMW, record.seed, accelerator="cpu"))


def test_a_program_ends_where_all_seeds_have_diverged() -> None:
    seen: list[Any] = []
    wild = replace(SGD, learning_rate=1e30, clip=None, warmup=0.0)
    records = together(STATIC, SHAKEN, wild, on_epoch=seen.append)
    assert [record.status for record in records] == ["diverged"] * 3
    assert not seen


def test_an_epoch_is_shown_as_the_mean_of_the_seeds() -> None:
    seen: list[Any] = []
    records = together(STATIC, SHAKEN, ADAMW, on_epoch=seen.append)
    for number, entry in enumerate(seen):
        epochs = [record.history[number] for record in records]
        assert entry == pytest.approx({name: sum(epoch[name] for epoch in epochs) / 3 for name in epochs[0]})
    assert len(seen) == 2


def test_a_record_says_that_its_time_was_shared() -> None:
    records = together(STATIC, SHAKEN, ADAMW)
    assert all(record.device.endswith("1 threads, 3 seeds at once") for record in records)
    assert len({(record.seconds, record.step_milliseconds, record.peak_memory) for record in records}) == 1
    steps = 2 * 3  # 100 images in whole batches of 32
    assert 0 < steps * records[0].step_milliseconds / 1000 < records[0].seconds


def test_kernel_images_are_kept_for_the_seeds_that_ask() -> None:
    pixel = network(Dynamic(context="pixel"))
    records = together(pixel, SHAKEN, ADAMW, images={0: 2})
    assert [bool(record.images) for record in records] == [False, True, False]
    own = train(pixel, SHAKEN, ADAMW, 0, accelerator="cpu", images=2)
    for ours, theirs in zip(records[1].images["kernels"].values(), own.images["kernels"].values(), strict=True):
        assert torch.allclose(torch.tensor(ours), torch.tensor(theirs), rtol=1e-2, atol=1e-3)


def stop_after(number: int) -> Any:
    def on_epoch(epoch: dict[str, float]) -> None:
        if epoch["epoch"] == number:
            raise ZeroDivisionError

    return on_epoch


def test_a_program_that_was_cut_off_ends_as_an_undisturbed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    data, recipe = Spoilt(fraction=0.1, seed=SEEDS[1]), replace(ADAMW, epochs=3)
    whole = together(STATIC, data, recipe)
    with pytest.raises(ZeroDivisionError):
        together(STATIC, data, recipe, folder=tmp_path, on_epoch=stop_after(2))
    seen: list[Any] = []
    resumed = together(STATIC, data, recipe, folder=tmp_path, on_epoch=seen.append)
    assert [entry["epoch"] for entry in seen] == [2, 3]
    for record, undisturbed in zip(resumed, whole, strict=True):
        assert record.history == undisturbed.history
        assert (record.status, record.reason) == (undisturbed.status, undisturbed.reason)


def test_other_seeds_do_not_go_on_from_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    with pytest.raises(ZeroDivisionError):
        together(STATIC, SHAKEN, ADAMW, (0, 1), folder=tmp_path, on_epoch=stop_after(2))
    for seeds in ((0, 1, 2), (1, 0), (0,)):
        seen: list[Any] = []
        together(STATIC, SHAKEN, ADAMW, seeds, folder=tmp_path, on_epoch=seen.append)
        assert [entry["epoch"] for entry in seen] == [1, 2]
    train(STATIC, SHAKEN, ADAMW, 0, folder=tmp_path, on_epoch=seen.append, accelerator="cpu")
    assert [entry["epoch"] for entry in seen] == [1, 2, 1, 2]


def test_running_statistics_follow_each_networks_own_batches() -> None:
    pixel = network(Dynamic(context="pixel"))
    networks = [pixel.build((1, 8, 8), 10) for _ in SEEDS]
    for seed, each in zip(SEEDS, networks, strict=True):
        initialise(each, seed)
    stacked = Together(networks)
    for x in torch.randn(2, 3, 16, 1, 8, 8):  # steps n b c h w
        output = stacked(x)
        assert torch.allclose(output, torch.stack([each(part) for each, part in zip(networks, x, strict=True)]), 1e-4)
    own = [pixel.build((1, 8, 8), 10) for _ in SEEDS]
    stacked.unstack(own)
    for ours, theirs in zip(own, networks, strict=True):
        for (name, buffer), expected in zip(ours.named_buffers(), theirs.buffers(), strict=True):
            assert torch.allclose(buffer, expected, 1e-4, 1e-6), name
    assert int(own[0].get_buffer("stem.0.1.num_batches_tracked")) == 2
    assert not torch.allclose(own[0].get_buffer("stem.0.1.running_mean"), own[1].get_buffer("stem.0.1.running_mean"))


def test_each_network_is_clipped_as_torch_clips_it() -> None:
    stacked = [nn.Parameter(torch.zeros(3, *shape)) for shape in ((4, 2), (5,), (), (7,))]
    for parameter in stacked[:3]:
        parameter.grad = torch.randn_like(parameter) * torch.tensor([0.01, 1.0, 100.0]).view(
            3, *(1,) * (parameter.dim() - 1)
        )
    expected = []
    for number in range(3):
        own = [nn.Parameter(torch.zeros(parameter.shape[1:])) for parameter in stacked[:3]]
        for parameter, other in zip(own, stacked, strict=False):
            parameter.grad = other.grad[number].clone()  # type: ignore[index]
        nn.utils.clip_grad_norm_(own, 0.5)
        expected.append([parameter.grad for parameter in own])
    clip_each(stacked, 0.5)
    for place, parameter in enumerate(stacked[:3]):
        assert torch.allclose(parameter.grad, torch.stack([grads[place] for grads in expected]))  # type: ignore
    assert stacked[3].grad is None


def test_a_layer_that_cannot_be_applied_to_several_seeds_is_named() -> None:
    message = (
        r"^network has layer '0\.1' of type Peeking: it cannot be applied to several seeds at once \(vmap: .*\)\. "
        r"Train the seeds one by one, without `--batch-seeds`\.$"
    )
    train(Odd(layer="peeking"), SHAKEN, ADAMW, 0, accelerator="cpu")
    with pytest.raises(SpecError, match=message):
        together(Odd(layer="peeking"), SHAKEN, ADAMW)


def test_a_network_that_fails_on_its_own_raises_its_own_error() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        together(Odd(layer="misfit"), SHAKEN, ADAMW)


def test_data_of_unequal_sizes_are_refused() -> None:
    with pytest.raises(
        SpecError, match=r"^data has .*\(997, 1, 8, 8\).* for seed 3, .*\(1000, 1, .* for seed 0: sizes"
    ):
        together(STATIC, Uneven(), ADAMW)


@pytest.mark.parametrize("seeds", [(), (1, 2, 1)])
def test_seeds_that_are_none_or_not_different_are_refused(seeds: tuple[int, ...]) -> None:
    with pytest.raises(
        SpecError, match=rf"^seeds has {str(seeds)[:-1]}.*: must be one or more, all different\.$".replace("(", r"\(")
    ):
        together(STATIC, SHAKEN, ADAMW, seeds)
