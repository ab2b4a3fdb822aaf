"""Stratified parts: shares of the classes, nesting, and messages."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dynops.data.dataset import Examples
from dynops.data.splits import split, stratified_order, subset
from dynops.errors import DataError, SpecError
from dynops.streams import stream

counts_of_classes = st.lists(st.integers(1, 40), min_size=1, max_size=6)


def numbered(counts: list[int]) -> Examples:
    """Examples whose one pixel is their number."""
    targets = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return Examples(inputs=torch.arange(len(targets)).view(-1, 1, 1, 1), targets=targets)


def numbers(examples: Examples) -> set[int]:
    return set(examples.inputs.flatten().tolist())


@settings(deadline=None, max_examples=80)
@given(counts=counts_of_classes, seed=st.integers(0, 100), share=st.floats(0, 1))
def test_each_first_part_holds_classes_in_their_proportions(counts: list[int], seed: int, share: float) -> None:
    targets = numbered(counts).targets
    order = stratified_order(targets, stream(seed, "test"))
    assert sorted(order.tolist()) == list(range(len(targets)))
    size = round(share * len(targets))
    came = torch.bincount(targets[order[:size]], minlength=len(counts))
    ideal = size * torch.tensor(counts) / len(targets)
    bound = 1.5 + len(counts) / 2 * torch.tensor(counts) / len(targets)
    assert bool(((came - ideal).abs() <= bound).all())


@settings(deadline=None, max_examples=80)
@given(
    counts=counts_of_classes,
    seed=st.integers(0, 100),
    fractions=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
)
def test_smaller_fraction_is_a_subset_of_a_larger_one(
    counts: list[int], seed: int, fractions: tuple[float, float]
) -> None:
    examples = numbered(counts)
    try:
        small, large = (subset(examples, fraction, stream(seed, "test")) for fraction in sorted(fractions))
    except SpecError:
        assume(False)
    assert numbers(small) <= numbers(large)
    assert len(small) == round(min(fractions) * len(examples))


@settings(deadline=None, max_examples=80)
@given(counts=counts_of_classes, seed=st.integers(0, 100), fraction=st.floats(0.001, 0.5))
def test_the_fraction_that_a_message_advises_is_enough(counts: list[int], seed: int, fraction: float) -> None:
    examples = numbered(counts)
    try:
        subset(examples, fraction, stream(seed, "test"))
    except SpecError as error:
        advised = float(str(error).rsplit(" ", 1)[1].rstrip("."))
        assert advised > fraction
        kept = subset(examples, advised, stream(seed, "test"))
        assert len(kept.targets.unique()) == len(counts)


def test_equal_classes_give_equal_parts() -> None:
    kept = subset(numbered([50, 50, 50, 50]), 0.1, stream(0, "test"))
    assert torch.bincount(kept.targets).tolist() == [5, 5, 5, 5]


def test_the_whole_fraction_keeps_everything_in_its_order() -> None:
    examples = numbered([3, 4])
    assert torch.equal(subset(examples, 1.0, stream(0, "test")).inputs, examples.inputs)


def test_split_parts_are_disjoint_and_complete() -> None:
    examples = numbered([30, 50, 20])
    first, rest = split(examples, 10, stream(0, "test"))
    assert torch.bincount(first.targets).tolist() == [3, 5, 2]
    assert not numbers(first) & numbers(rest)
    assert numbers(first) | numbers(rest) == numbers(examples)


def test_another_seed_draws_another_subset() -> None:
    examples = numbered([100, 100])
    one, other = (subset(examples, 0.2, stream(seed, "test")) for seed in (0, 1))
    assert numbers(one) != numbers(other)


def test_fraction_that_empties_a_class_says_the_least_one() -> None:
    message = (
        r"^fraction has 0\.02, 4 of 200 training images with 4 of 5 classes: "
        r"must leave an image of each class\. Use at least 0\.025\.$"
    )
    with pytest.raises(SpecError, match=message):
        subset(numbered([40] * 5), 0.02, stream(0, "test"))


def test_split_that_empties_a_class_says_the_sizes() -> None:
    message = (
        r"^split of 32 images has 1 of 2 classes in a part of 3: "
        r"must have each class in both parts\. Add images of the rarest classes\.$"
    )
    with pytest.raises(DataError, match=message):
        split(numbered([30, 2]), 3, stream(0, "test"))
