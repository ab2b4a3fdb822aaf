"""Probes: an oracle that reads the selector from the inputs answers exactly, and whoever cannot has the floor."""

from fractions import Fraction
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dynops.data import Dataset, Examples, SelectorShift
from dynops.data.probes import TASKS, judged_pixels
from dynops.errors import SpecError

DELTAS = [(-1, 0), (1, 0), (0, 1), (0, -1)]  # north, south, east, west
LATTICE = range(1, 17, 3)


def made(task: str, train: int = 64, test: int = 8, seed: int = 0) -> Dataset:
    return SelectorShift(task=task, train=train, test=test).load(seed)


def judged(task: str) -> list[tuple[int, int]]:
    rows = LATTICE if task in ("marker", "match") else range(1, 17)
    return list(product(rows, rows))


def side_shown(task: str, code: Tensor, row: int, column: int, channel: int) -> int:
    """Read the side from the code of one image, `c h w`, as a person would."""
    around = [code[:, row + down, column + right] for down, right in DELTAS]
    if task == "channel":
        return channel % 4
    if task == "pixel":
        return int(code[:, row, column].argmax())
    if task == "pixel_channel":
        return (int(code[:, row, column].argmax()) + channel) % 4
    if task == "sample":
        return int(code.sum((1, 2)).argmax())
    if task == "marker":
        return [int(neighbour[0]) for neighbour in around].index(1)
    own = int(code[:, row, column].argmax())
    matches = [int(neighbour.argmax()) == own for neighbour in around]
    assert sum(matches) == 1
    return matches.index(True)


@pytest.mark.parametrize("task", [task for task in TASKS if task != "position"])
def test_oracle_that_reads_the_code_has_no_error(task: str) -> None:
    test = made(task).test
    for number in range(3):
        values, code = test.inputs[number, :8], test.inputs[number, 8:]
        for (row, column), channel in product(judged(task), range(8)):
            down, right = DELTAS[side_shown(task, code, row, column, channel)]
            assert test.targets[number, channel, row, column] == values[channel, row + down, column + right]


def side_that_fits(part: Examples) -> Tensor:
    """Find, at each pixel, the one side that answers in all images and channels, `h w`."""
    shifted = torch.stack([torch.roll(part.inputs[:, :8], (-down, -right), (2, 3)) for down, right in DELTAS])
    fits = (shifted == part.targets).flatten(1, 2).all(1)  # side h w
    assert torch.equal(fits.sum(0), torch.ones(18, 18, dtype=torch.int64))
    return fits.int().argmax(0)


def test_position_hides_one_map_that_train_and_test_share() -> None:
    data, other = made("position"), made("position", seed=1)
    assert not data.train.inputs[:, 8:].any()
    assert torch.equal(side_that_fits(data.train), side_that_fits(data.test))
    assert not torch.equal(side_that_fits(data.test), side_that_fits(other.test))


def test_floor_in_closed_form_is_three_quarters() -> None:
    """E (v_s - sum_t k_t v_t)^2 = 1 - 2 mean(k) + sum(k^2), least at k = 1/4, worth 3/4 exactly."""

    def error(kernel: list[Fraction]) -> Fraction:
        return 1 - 2 * sum(kernel, Fraction(0)) / 4 + sum((tap**2 for tap in kernel), Fraction(0))

    quarter = [Fraction(1, 4)] * 4
    assert error(quarter) == Fraction(3, 4)
    for tap, step in product(range(4), (Fraction(-1, 100), Fraction(1, 100))):
        moved = [each + step * (place == tap) for place, each in enumerate(quarter)]
        assert error(moved) > Fraction(3, 4)


@pytest.mark.parametrize("task", TASKS)
def test_best_shared_static_kernel_is_a_quarter_of_each_neighbour(task: str) -> None:
    data = made(task, train=400, test=400)
    assert data.mask is not None
    windows = F.unfold(data.train.inputs[:, :8].reshape(-1, 1, 18, 18), 3, padding=1).view(-1, 9, 18, 18)
    taps = windows.permute(0, 2, 3, 1)[:, data.mask].reshape(-1, 9)
    answers = data.train.targets.reshape(-1, 18, 18)[:, data.mask].reshape(-1, 1)
    best = torch.linalg.lstsq(taps, answers).solution.view(1, 1, 3, 3)
    plus = torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]]) / 4
    torch.testing.assert_close(best[0, 0], plus, atol=0.05 if task == "position" else 0.02, rtol=0)
    for kernel in (best, plus.view(1, 1, 3, 3)):
        answer = F.conv2d(data.test.inputs[:, :8], kernel.expand(8, 1, 3, 3), padding=1, groups=8)
        error = (answer - data.test.targets)[:, :, data.mask].square().mean().item()
        assert error == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("task", TASKS)
def test_every_side_answers_a_quarter_of_the_time(task: str) -> None:
    data = made(task, train=400)
    values, targets = data.train.inputs[:, :8], data.train.targets
    for down, right in DELTAS:
        hits = (torch.roll(values, (-down, -right), (2, 3)) == targets)[:, :, data.mask].float().mean().item()
        assert hits == pytest.approx(0.25, abs=0.08 if task in ("position", "sample") else 0.01)


@pytest.mark.parametrize("task", TASKS)
def test_values_are_those_of_every_task_and_the_mask_spares_the_border(task: str) -> None:
    data, other = made(task), made("channel")
    assert torch.equal(data.train.inputs[:, :8], other.train.inputs[:, :8])
    assert not torch.equal(data.train.inputs[:8, :8], data.test.inputs[:, :8])
    assert data.mask is not None
    assert data.mask.nonzero().tolist() == [list(pixel) for pixel in judged(task)]
    assert (data.input_shape, data.outputs, data.task) == ((16, 18, 18), 8, "regression")
    assert torch.equal(data.normalise(data.test.inputs), data.test.inputs)


def test_values_are_standard_normal() -> None:
    values = made("channel", train=500).train.inputs[:, :8]
    assert values.mean().item() == pytest.approx(0, abs=0.005)
    assert values.std().item() == pytest.approx(1, abs=0.005)


def test_a_tenth_of_the_pixels_shows_the_side_of_a_sample() -> None:
    code = made("sample", train=500).train.inputs[:, 8:]
    assert code.sum(1).mean().item() == pytest.approx(0.1, abs=0.005)
    assert bool((code.amax((2, 3)).sum(1) == 1).all())


def test_symbols_occur_equally_often() -> None:
    code = made("match", train=500).train.inputs[:, 8:]
    assert torch.equal(code.sum(1), torch.ones(500, 18, 18))
    torch.testing.assert_close(code.mean((0, 2, 3)), torch.full((8,), 1 / 8), atol=0.005, rtol=0)


def test_no_two_lattice_pixels_share_a_neighbour() -> None:
    pixels = judged_pixels("match").nonzero().tolist()
    around = [(row + down, column + right) for row, column in pixels for down, right in DELTAS]
    assert len(set(around)) == 4 * len(pixels) == 144


def test_one_seed_gives_one_probe_and_the_training_size_does_not_change_the_test() -> None:
    one, same, more = (made("match", train=train) for train in (10, 10, 20))
    assert torch.equal(one.train.inputs, same.train.inputs)
    assert torch.equal(one.test.inputs, more.test.inputs)
    assert not torch.equal(one.test.inputs, made("match", train=10, seed=1).test.inputs)


def test_unknown_task_is_refused() -> None:
    message = (
        r"^task has 'depth': must be one of 'channel', 'pixel', 'pixel_channel', 'sample', 'position', 'marker', "
        r"'match'\.$"
    )
    with pytest.raises(SpecError, match=message):
        SelectorShift(task="depth")


@pytest.mark.parametrize("field", ["train", "test"])
def test_probe_without_examples_is_refused(field: str) -> None:
    with pytest.raises(SpecError, match=rf"^{field} has 0: must be an integer of at least 1\.$"):
        SelectorShift(task="pixel", **{field: 0})
