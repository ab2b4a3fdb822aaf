"""Random streams: each purpose has its own, and no purpose moves another."""

from itertools import product

import torch

from dynops.streams import stream, stream_seed


def numbers(*purpose: str | int, seed: int = 0, count: int = 10_000) -> torch.Tensor:
    return torch.randn(count, generator=stream(seed, *purpose))


def test_stream_repeats_itself() -> None:
    assert torch.equal(numbers("order", 1), numbers("order", 1))


def test_seeds_stay_as_they_are() -> None:
    # a change of these numbers changes the data and the weights of every study
    assert stream_seed(0) == 4761921975702974394
    assert stream_seed(1, "order", 2) == 5971170691884857887


def test_purposes_and_seeds_have_seeds_of_their_own() -> None:
    keys = list(product(range(50), ("split", "order", "augment"), range(20)))
    seeds = {stream_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_streams_of_two_purposes_are_uncorrelated() -> None:
    one, others = numbers("order"), [numbers("augment"), numbers("order", 1), numbers("order", seed=1)]
    for other in others:
        # five standard errors
        assert torch.corrcoef(torch.stack([one, other]))[0, 1].abs() < 5 / 100


def test_drawing_from_one_stream_moves_no_other() -> None:
    expected = numbers("augment")
    first, second = stream(0, "order"), stream(0, "augment")
    torch.randn(123, generator=first)
    torch.randn(7)
    assert torch.equal(torch.randn(10_000, generator=second), expected)


def test_stream_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    numbers("order")
    assert torch.equal(torch.get_rng_state(), state)
