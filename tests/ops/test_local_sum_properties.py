"""Properties that hold for any kernel and value: linearity, shifts, sharing, and the order of groups."""

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dynops.ops import Window, local_sum

Draw = Callable[..., tuple[Tensor, Tensor]]
Near = Callable[[Tensor, Tensor], None]
Takers = Callable[..., list[str]]
EXAMPLES = settings(deadline=None, max_examples=25)

few = st.integers(1, 3)
pairs = st.tuples(few, few)


@st.composite
def windows(draw_from: st.DrawFn) -> Window:
    padding = draw_from(st.sampled_from(("centre", "same")))
    size = st.sampled_from((1, 3, 5) if padding == "centre" else (1, 2, 3, 4))
    return Window(draw_from(st.tuples(size, size)), stride=draw_from(pairs), dilation=draw_from(pairs), padding=padding)


def cases() -> st.SearchStrategy[dict[str, Any]]:
    letters = dict.fromkeys("bgois", few)
    side = st.integers(1, 7)
    return st.fixed_dictionaries(letters | {"size": st.tuples(side, side), "seed": st.integers(0, 2**32)})


axes = st.sets(st.sampled_from("bgikhw")).map(lambda letters: "".join(sorted(letters)))
numbers = st.floats(-4, 4)


@EXAMPLES
@given(windows(), cases(), axes, numbers)
def test_sum_is_linear_in_the_kernel(
    takers: Takers, draw: Draw, assert_near: Near, window: Window, case: dict, ones: str, factor: float
) -> None:
    kernel, value = draw(window, ones=ones, **case)
    other = draw(window, ones=ones, **case | {"seed": case["seed"] + 1})[0]

    for backend in takers(kernel, value, window):
        both, first, second = (
            local_sum(each, value, window, backend=backend) for each in (kernel + factor * other, kernel, other)
        )
        assert_near(both, first + factor * second)


@EXAMPLES
@given(windows(), cases(), axes, numbers)
def test_sum_is_linear_in_the_value(
    takers: Takers, draw: Draw, assert_near: Near, window: Window, case: dict, ones: str, factor: float
) -> None:
    kernel, value = draw(window, ones=ones, **case)
    other = draw(window, **case | {"seed": case["seed"] + 1})[1]

    for backend in takers(kernel, value, window):
        both, first, second = (
            local_sum(kernel, each, window, backend=backend) for each in (value + factor * other, value, other)
        )
        assert_near(both, first + factor * second)


@EXAMPLES
@given(st.sampled_from((1, 3, 5)), pairs, pairs, pairs, st.integers(0, 2**32))
def test_shifted_kernel_and_value_give_the_shifted_sum_inside(
    takers: Takers,
    draw: Draw,
    assert_near: Near,
    size: int,
    stride: tuple[int, int],
    dilation: tuple[int, int],
    steps: tuple[int, int],
    seed: int,
) -> None:
    window = Window(size, stride=stride, dilation=dilation)
    shape = (17 * stride[0], 17 * stride[1])
    kernel, value = draw(window, shape, g=2, o=2, i=2, s=1, b=1, seed=seed)
    shift = (steps[0] * stride[0], steps[1] * stride[1])
    moved_kernel, moved_value = torch.roll(kernel, steps, (-2, -1)), torch.roll(value, shift, (-2, -1))
    # outputs whose window lies inside, before and after the shift
    edges = [-(-d * (size - 1) // (2 * t)) for d, t in zip(dilation, stride, strict=True)]
    (top, left), (down, right) = edges, steps
    for backend in takers(kernel, value, window):
        moved = local_sum(moved_kernel, moved_value, window, backend=backend)
        here = local_sum(kernel, value, window, backend=backend)[..., top : 17 - top - down, left : 17 - left - right]
        assert here.numel() > 0
        assert_near(moved[..., top + down : 17 - top, left + right : 17 - left], here)


@EXAMPLES
@given(windows(), cases(), axes)
def test_axis_of_size_1_is_the_same_as_its_copies(
    takers: Takers, draw: Draw, assert_near: Near, window: Window, case: dict, ones: str
) -> None:
    kernel, value = draw(window, ones=ones, **case)
    copies = kernel.expand(draw(window, **case)[0].shape).contiguous()
    expected = local_sum(copies, value, window, backend="reference")
    for backend in takers(kernel, value, window):
        assert_near(local_sum(kernel, value, window, backend=backend), expected)


@EXAMPLES
@given(windows(), cases(), st.permutations(range(4)))
def test_permuted_groups_give_permuted_channels(
    takers: Takers, draw: Draw, assert_near: Near, window: Window, case: dict, order: list[int]
) -> None:
    kernel, value = draw(window, **case | {"g": 4})
    for backend in takers(kernel, value, window):
        y = local_sum(kernel, value, window, backend=backend)
        assert_near(local_sum(kernel[:, order], value[:, order], window, backend=backend), y[:, order])


@EXAMPLES
@given(windows(), cases(), st.permutations(range(3)))
def test_permuted_shares_see_the_same_kernel(
    takers: Takers, draw: Draw, assert_near: Near, window: Window, case: dict, order: list[int]
) -> None:
    kernel, value = draw(window, **case | {"s": 3})
    for backend in takers(kernel, value, window):
        y = local_sum(kernel, value, window, backend=backend)
        assert_near(local_sum(kernel, value[:, :, :, order], window, backend=backend), y[:, :, :, order])
