"""Mixed images: the papers' formulas, written out as loops; shares of classes; a stream of their own."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import beta, kstest

from dynops import zoo
from dynops.data import Batches, Digits, SelectorShift
from dynops.errors import SpecError
from dynops.nets import Bare
from dynops.training import Experiment, Recipe, train, train_together
from dynops.training.mixing import blend, cutmix, mix, mixer

RECIPES = [Recipe(mixup=0.4), Recipe(cutmix=1.0), Recipe(mixup=0.4, cutmix=1.0)]


def images(height: int = 6, width: int = 9) -> torch.Tensor:
    """Images whose pixels tell which image they are from."""
    return torch.arange(5.0).view(5, 1, 1, 1).expand(5, 2, height, width).contiguous()


def test_blend_is_the_formula_of_mixup() -> None:
    x, partners = torch.randn(4, 3, 5, 6), torch.tensor([2, 0, 1, 3])
    for b in range(4):
        expected = 0.3 * x[b] + 0.7 * x[partners[b]]
        assert torch.allclose(blend(x, partners, 0.3)[b], expected)


@pytest.mark.parametrize("share", [0.0, 0.15, 0.5, 0.9, 1.0])
def test_a_cut_is_the_box_of_cutmix_and_its_share_counts_pixels(share: float) -> None:
    x, partners = images(), torch.tensor([4, 3, 0, 1, 2])
    for seed in range(40):
        mixed, counted = cutmix(x, partners, share, np.random.default_rng(seed))
        generator = np.random.default_rng(seed)
        expected = x.clone()
        (row, column), root = (generator.integers(6), generator.integers(9)), np.sqrt(1 - share)
        for b in range(5):
            for i in range(6):
                for j in range(9):
                    inside = -(int(6 * root) // 2) <= i - row < int(6 * root) // 2
                    if inside and -(int(9 * root) // 2) <= j - column < int(9 * root) // 2:
                        expected[b, :, i, j] = x[partners[b], :, i, j]
        assert torch.equal(mixed, expected)
        assert counted == pytest.approx(float((mixed[0] == x[0]).float().mean()))


@pytest.mark.parametrize("recipe", RECIPES)
def test_classes_are_mixed_in_the_shares_of_the_pixels(recipe: Recipe) -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        x = torch.eye(5).view(5, 5, 1, 1).expand(5, 5, 16, 16)  # the mean of channel c is the share of image c
        mixed, targets = mix(x, torch.eye(5), recipe, generator)
        assert torch.allclose(mixed.mean((2, 3)), targets, atol=1e-6)
        assert torch.allclose(targets.sum(1), torch.ones(5))


def test_shares_have_a_beta_distribution() -> None:
    generator = np.random.default_rng(1)
    shares = []
    while len(shares) < 1000:
        _, targets = mix(images(), torch.eye(5), Recipe(mixup=0.4), generator)
        partnered = targets.diagonal()[targets.diagonal() < 1]
        shares += [float(partnered[0])] if len(partnered) else []
    assert kstest(shares, beta(0.4, 0.4).cdf).pvalue > 1e-3


def test_with_both_a_batch_goes_through_either() -> None:
    generator = np.random.default_rng(2)
    cuts = 0
    for _ in range(400):
        mixed, _ = mix(images(32, 32), torch.eye(5), Recipe(mixup=1.0, cutmix=1.0), generator)
        cuts += bool((mixed == mixed.round()).all())
    assert 150 < cuts < 250


def test_the_loss_of_a_mixture_is_the_mixture_of_the_losses() -> None:
    output, classes, partners = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([1, 0, 5, 2, 4, 3])
    targets = blend(F.one_hot(classes, 4).float(), partners, 0.3)
    one, other = (F.cross_entropy(output, each, label_smoothing=0.1) for each in (classes, classes[partners]))
    assert torch.allclose(F.cross_entropy(output, targets, label_smoothing=0.1), 0.3 * one + 0.7 * other)


def test_an_epoch_has_the_same_mixtures_again_and_another_has_others() -> None:
    mixed = Batches(
        dataset=Digits(fraction=0.1).load(0), split="train", batch_size=32, device="cpu", mix=mixer(RECIPES[2], 10)
    )
    found = []
    for epoch in (0, 1, 0):
        mixed.epoch = epoch
        found.append(torch.cat([x for x, _ in mixed]))
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_training_with_mixed_images_is_repeated_to_the_bit(small: Any, recipe: Recipe) -> None:
    mixed = replace(small, recipe=replace(small.recipe, mixup=recipe.mixup, cutmix=recipe.cutmix))
    first = mixed.train()
    torch.rand(3)
    np.random.rand(3)
    assert mixed.train().history == first.history
    assert first.history[0]["train_loss"] != small.train().history[0]["train_loss"]


def test_seeds_that_train_together_have_mixtures_of_their_own(small: Any) -> None:
    recipe = replace(small.recipe, mixup=0.4, cutmix=1.0, accumulate=2)
    for record in train_together(small.network, small.data, recipe, (3, 5), accelerator="cpu"):
        own = train(small.network, small.data, recipe, record.seed, accelerator="cpu")
        assert record.metrics == pytest.approx(own.metrics, rel=1e-4)


def test_images_without_classes_are_not_mixed() -> None:
    experiment = Experiment(
        network=Bare(operator=zoo.depthwise(3)),
        data=SelectorShift(task="pixel", train=32, test=32),
        recipe=Recipe(mixup=0.2),
    )
    message = r"^recipe has mixup=0\.2 and cutmix=0\.0, data have task 'regression': .*\. Use 0 for both\.$"
    with pytest.raises(SpecError, match=message):
        experiment.check(0)
    with pytest.raises(SpecError, match=message):
        experiment.run(0)
