"""Block and global windows against their definition, scattering against torch's fold, offsets against its sampling."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from math import prod

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dynops.errors import ShapeError, SpecError
from dynops.ops import Block, Geometry, Global, Window, gather, local_sum, scatter
from dynops.specs import Spec

Near = Callable[[Tensor, Tensor], None]
Takers = Callable[..., list[str]]
BORDERS = ("zeros", "mask", "reflect", "replicate", "circular")
SIZE = (5, 6, 4)


def stands_at(place: int, length: int, border: str) -> int:
    """The pixel at a place of a continued axis, found by walking back inside; -1 where there is none."""
    if border == "replicate":
        return min(max(place, 0), length - 1)
    while border in ("reflect", "circular") and not 0 <= place < length:
        if border == "circular":
            place += length if place < 0 else -length
        else:
            place = -place if place < 0 else 2 * (length - 1) - place
    return place if 0 <= place < length else -1


def seen_from(pixel: int, block: int, halo: int, shift: int) -> range:
    """The places that a pixel sees: its block, which begins at floor((p - shift) / B) B + shift, and the halo."""
    begin = (pixel - shift) // block * block + shift
    return range(begin - halo, begin + block + halo)


def places_of(window: Geometry, size: tuple[int, ...], axis: int) -> list[list[int]]:
    """The places that each output of an axis sees, whether or not there are pixels."""
    length, stride = size[axis], window.strides[axis]
    if isinstance(window, Global):
        return [list(range(length)) for _ in range(window.output_size(size)[axis])]
    numbers = [each[axis] if isinstance(each, tuple) else each for each in (window.size, window.halo, window.shift)]
    return [list(seen_from(pixel, *numbers)) for pixel in range(0, length, stride)]


def border_of(window: Geometry) -> str:
    return getattr(window, "border", "mask")  # a global window ends where the image does


def reaches_too_far(window: Geometry, size: tuple[int, ...]) -> bool:
    """Whether a place lies as far outside as the axis is long, so that one reflection does not bring it back."""
    return any(
        max(-place, place - length + 1) >= length
        for axis, length in enumerate(size)
        for places in places_of(window, size, axis)
        for place in places
    )


NUMBERS = [
    # block, halo, shift, stride
    (1, 0, 0, 1),
    (1, 2, 0, 1),
    (3, 0, 0, 1),
    (3, 1, 0, 1),
    (4, 0, 1, 1),
    (4, 2, 3, 1),
    (5, 3, 2, 1),
    (2, 5, 1, 1),
    (4, 0, 0, 2),
    (4, 1, 2, 2),
    (6, 2, 3, 3),
    (6, 0, 4, 2),
]


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(("block", "halo", "shift", "stride"), NUMBERS)
def test_block_of_a_pixel_is_that_of_the_definition(
    block: int, halo: int, shift: int, stride: int, border: str
) -> None:
    window = Block(block, halo=halo, shift=shift, stride=stride, border=border, dims=1)
    for length in range(1, 14):
        if border == "reflect" and reaches_too_far(window, (length,)):
            with pytest.raises(ShapeError, match=rf"^value has {length} pixels in dimension 0, window reaches "):
                window.check((length,))
            continue
        window.check((length,))
        seen = places_of(window, (length,), 0)
        assert window.output_size((length,)) == (len(seen),)
        assert window.tap_grid((length,)) == (len(seen[0]),)
        (table,) = window.positions((length,))
        assert table.tolist() == [[stands_at(place, length, border) for place in places] for places in seen]


@pytest.mark.parametrize(("block", "halo", "shift", "stride"), NUMBERS)
def test_relative_place_in_a_block_counts_from_the_farthest_that_any_halo_allows(
    block: int, halo: int, shift: int, stride: int
) -> None:
    window = Block(block, halo=halo, shift=shift, stride=stride, dims=1)
    across = block + 2 * halo
    assert window.reaches(None) == (2 * across - 1,)
    for length in range(1, 14):
        found = window.relative((length,), 0, None)
        apart = [
            [place - output * stride for place in places]
            for output, places in enumerate(places_of(window, (length,), 0))
        ]
        assert found.tolist() == [[each + halo + across - 1 for each in row] for row in apart]
        assert found.min() >= 0
        assert found.max() <= 2 * across - 2


@pytest.mark.parametrize(("length", "stride"), list(product((1, 2, 5, 6), (1, 2, 3))))
def test_global_window_sees_every_pixel_from_every_output(length: int, stride: int) -> None:
    window = Global(stride=stride, dims=1)
    pixels = list(range(0, length, stride))
    assert window.output_size((length,)) == (len(pixels),)
    assert window.positions((length,))[0].tolist() == [list(range(length))] * len(pixels)
    assert window.reaches((length,)) == (2 * length - 1,)
    relative = window.relative((length,), 0, None).tolist()
    assert relative == [[seen - pixel + length - 1 for seen in range(length)] for pixel in pixels]


WINDOWS: dict[str, Geometry] = {
    "row": Block(4, dims=1),
    "row, shifted": Block(3, halo=2, shift=1, dims=1),
    "row, strided": Block(4, halo=1, shift=2, stride=2, border="zeros", dims=1),
    "image": Block(3),
    "image, halo": Block((2, 4), halo=(1, 0), shift=(0, 2), stride=(1, 2), border="zeros"),
    "image, shifted": Block(4, shift=3),
    "image, reflected": Block((2, 3), halo=1, shift=(1, 0), border="reflect"),
    "image, replicated": Block(3, halo=4, shift=1, border="replicate"),
    "image, circular": Block(4, halo=1, shift=2, stride=2, border="circular"),
    "volume": Block((2, 3, 3), halo=(1, 0, 1), shift=(1, 2, 0), dims=3),
    "volume, strided": Block(2, halo=1, stride=2, border="circular", dims=3),
    "all of a row": Global(dims=1),
    "all of an image": Global(),
    "all of an image, strided": Global(stride=(2, 3)),
    "all of a volume": Global(stride=(2, 1, 3), dims=3),
    "tokens of a row": Global(grid=(3,), dims=1),
    "tokens of an image": Global(grid=(2, 7)),
    "tokens of a volume": Global(grid=(1, 3, 2), dims=3),
}
ALL = pytest.mark.parametrize("window", list(WINDOWS.values()), ids=list(WINDOWS))


@ALL
def test_taps_are_laid_out_row_by_row_as_are_their_relative_places(window: Geometry) -> None:
    size = SIZE[: window.dims]
    tables = [places_of(window, size, axis) for axis in range(window.dims)]
    border, inside, index = border_of(window), window.inside(size), None
    if not isinstance(window, Global) or window.grid is None:
        index, reaches = window.offsets(size), window.reaches(size)
        relative = [window.relative(size, axis, None).tolist() for axis in range(window.dims)]
    outputs = [range(len(table)) for table in tables]
    for tap, taps in enumerate(product(*(range(len(table[0])) for table in tables))):
        for output in product(*outputs):
            seen = [table[place][k] for table, place, k in zip(tables, output, taps, strict=True)]
            pixels = [stands_at(place, length, border) for place, length in zip(seen, size, strict=True)]
            assert inside[(tap, *output)] == (-1 not in pixels)
            if index is not None:
                number = 0
                for row, place, k, reach in zip(relative, output, taps, reaches, strict=True):
                    number = number * reach + row[place][k]
                assert index[(tap, *output)] == number


@pytest.mark.parametrize("reach", [1, 3, 5, 9, 21])
@pytest.mark.parametrize(
    "window",
    [
        Block(3),
        Block(4, shift=2, stride=2),
        Block(3, halo=2, shift=1),
        Block((2, 4), halo=(3, 1), stride=2),
        Global(),
        Global(stride=2),
    ],
)
def test_relative_places_near_a_pixel_are_counted_alone(window: Geometry, reach: int) -> None:
    index = window.offsets((5, 6), reach=reach)
    rows, columns = (places_of(window, (5, 6), axis) for axis in range(2))
    for row, column in product(range(len(rows)), range(len(columns))):
        for tap, (r, c) in enumerate(product(rows[row], columns[column])):
            down, right = (
                place - output * stride + reach // 2
                for place, output, stride in zip((r, c), (row, column), window.strides, strict=True)
            )
            near = 0 <= down < reach and 0 <= right < reach
            assert index[tap, row, column] == (down * reach + right if near else -1)


def case(window: Geometry, size: tuple[int, ...], ones: str = "") -> tuple[Tensor, Tensor]:
    """A kernel `b g o i k grid` and a value `b g i s grid`; the kernel's axes in `ones` have size 1, p is the grid."""
    letters = {"b": 2, "g": 2, "o": 3, "i": 2, "k": prod(window.tap_grid(size))}
    shape = [1 if letter in ones else number for letter, number in letters.items()]
    grid = [1 if "p" in ones or str(axis) in ones else length for axis, length in enumerate(window.output_size(size))]
    kernel = torch.randn(*shape, *grid, dtype=torch.float64, requires_grad=True)
    return kernel, torch.randn(2, 2, 2, 2, *size, dtype=torch.float64, requires_grad=True)


def gathered(value: Tensor, window: Geometry) -> Tensor:
    """What each tap of each output sees, `... k grid`, pixel by pixel."""
    size = tuple(value.shape[-window.dims :])
    tables = [places_of(window, size, axis) for axis in range(window.dims)]
    taps, pixels = [], window.output_size(size)
    for tap in product(*(range(len(table[0])) for table in tables)):
        row = []
        for output in product(*map(range, pixels)):
            places = [table[place][k] for table, place, k in zip(tables, output, tap, strict=True)]
            seen = [stands_at(place, each, border_of(window)) for place, each in zip(places, size, strict=True)]
            row.append(torch.zeros_like(value[(..., *(0,) * window.dims)]) if -1 in seen else value[(..., *seen)])
        taps.append(torch.stack(row, dim=-1).unflatten(-1, pixels))
    return torch.stack(taps, dim=-1 - window.dims)


@ALL
def test_sum_over_a_window_in_common_is_that_of_the_definition(
    window: Geometry, takers: Takers, assert_near: Near
) -> None:
    kernel, value = case(window, SIZE[: window.dims])
    patches = gathered(value, window)
    assert_near(gather(value, window), patches)
    expected = torch.einsum("bgoik...,bgisk...->bgos...", kernel, patches)
    weight = torch.randn_like(expected)
    exact = torch.autograd.grad(expected, (kernel, value), weight)
    for backend in takers(kernel, value, window):
        y = local_sum(kernel, value, window, backend=backend)
        assert_near(y, expected)
        for found, each in zip(torch.autograd.grad(y, (kernel, value), weight), exact, strict=True):
            assert_near(found, each)


@ALL
def test_backends_are_equal_for_kernels_that_are_constant_along_axes(
    window: Geometry, takers: Takers, assert_near: Near
) -> None:
    for ones in ("b", "g", "o", "i", "k", "p", "0", "bp", "gk", "ip", "kp", "bgoikp"):
        kernel, value = case(window, SIZE[: window.dims], ones)
        expected = local_sum(kernel, value, window, backend="reference")
        weight = torch.randn_like(expected)
        exact = torch.autograd.grad(expected, (kernel, value), weight)
        for backend in takers(kernel, value, window):
            y = local_sum(kernel, value, window, backend=backend)
            assert_near(y, expected)
            for found, each in zip(torch.autograd.grad(y, (kernel, value), weight), exact, strict=True):
                assert_near(found, each)


@pytest.mark.parametrize(("block", "shift"), [((2, 3), (1, 1)), ((4, 3), (2, 0)), ((1, 6), (0, 5)), ((4, 2), (3, 1))])
def test_circular_shift_is_a_roll_without_a_mask(
    block: tuple[int, int], shift: tuple[int, int], assert_near: Near
) -> None:
    window = Block(block, shift=shift, border="circular")
    back, axes = tuple(-each for each in shift), (-2, -1)
    kernel, value = case(window, (8, 6))
    plain = replace(window, shift=0)
    rolled = local_sum(torch.roll(kernel, back, axes), torch.roll(value, back, axes), plain)
    assert_near(local_sum(kernel, value, window), torch.roll(rolled, shift, axes))
    assert_near(gather(value, window), torch.roll(gather(torch.roll(value, back, axes), plain), shift, axes))
    # only at the edges does a shift with a mask see less
    within = window.inside((8, 6)) & Block(block, shift=shift).inside((8, 6))
    masked = gather(value, Block(block, shift=shift))
    assert_near(masked, gather(value, window).masked_fill(~within, 0))


def test_block_as_large_as_the_image_is_global(assert_near: Near) -> None:
    kernel, value = case(Global(), (4, 5))
    assert_near(local_sum(kernel, value, Block((4, 5))), local_sum(kernel, value, Global()))


@pytest.mark.parametrize("backend", ["reference", "products"])
@pytest.mark.parametrize("grid", [(3,), (2, 7), (3, 1, 2)])
def test_tokens_that_are_no_pixels_are_products_with_a_matrix(
    grid: tuple[int, ...], backend: str, assert_near: Near
) -> None:
    window, size = Global(grid=grid, dims=len(grid)), SIZE[: len(grid)]
    assert window.output_size(size) == grid
    matrix = torch.randn(prod(grid), prod(size), dtype=torch.float64)
    value = torch.randn(2, 1, 1, 3, *size, dtype=torch.float64)
    kernel = matrix.T.reshape(1, 1, 1, 1, prod(size), *grid)
    y = local_sum(kernel, value, window, backend=backend)
    assert_near(y.flatten(4), value.flatten(4) @ matrix.T)


@pytest.mark.parametrize("size", [(6, 7), (5, 4), (3, 9)])
@pytest.mark.parametrize(
    ("taps", "stride", "dilation"),
    [(3, 1, 1), (1, 2, 1), (3, 2, 1), (5, 1, 1), (3, 1, 2), (5, 3, 2), ((3, 5), (1, 2), (2, 1))],
)
def test_scatter_is_the_fold_of_torch(
    taps: int | tuple[int, int], stride: int, dilation: int, size: tuple[int, int], assert_near: Near
) -> None:
    window = Window(taps, stride=stride, dilation=dilation)
    y = torch.randn(2, 3, window.taps, *window.output_size(size), dtype=torch.float64, requires_grad=True)
    padding = tuple(each * (length // 2) for each, length in zip(window.dilations, window.sizes, strict=True))
    expected = F.fold(y.flatten(1, 2).flatten(2), size, window.sizes, window.dilations, padding, window.strides)
    found = scatter(y, window, size)
    assert_near(found, expected)
    weight = torch.randn_like(expected)
    assert_near(*(torch.autograd.grad(each, y, weight)[0] for each in (found, expected)))


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_scatter_of_tiles_is_the_pixel_shuffle(factor: int, assert_near: Near) -> None:
    y = torch.randn(2, 5, factor**2, 3, 4, dtype=torch.float64)
    found = scatter(y, Window(factor, stride=factor, padding="same"), (3 * factor, 4 * factor))
    assert_near(found, F.pixel_shuffle(y.flatten(1, 2), factor))


@pytest.mark.parametrize("border", ["zeros", "mask"])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    ("taps", "stride", "dilation", "padding"),
    [
        (3, 1, 1, "centre"),
        (5, 2, 1, "centre"),
        (3, 3, 2, "centre"),
        (1, 2, 1, "centre"),
        (2, 1, 1, "same"),
        (4, 3, 1, "same"),
        (2, 2, 3, "same"),
        (3, 1, 1, "causal"),
        (4, 2, 2, "causal"),
    ],
)
def test_scatter_is_the_adjoint_of_gather(
    taps: int, stride: int, dilation: int, padding: str, dims: int, border: str, assert_near: Near
) -> None:
    window = Window(taps, stride=stride, dilation=dilation, padding=padding, border=border, dims=dims)
    x = torch.randn(2, *SIZE[:dims], dtype=torch.float64, requires_grad=True)
    patches = gather(x, window)
    y = torch.randn_like(patches)
    found = scatter(y, window, SIZE[:dims])
    assert_near((found * x).sum(), (patches * y).sum())
    assert_near(found, torch.autograd.grad(patches, x, y)[0])


SLIDING = [
    Window(3),
    Window((1, 5), stride=(2, 1), dilation=(1, 2)),
    Window(2, stride=2, padding="same"),
    Window((4, 3), padding="same", dilation=(1, 2)),
    Window(3, padding="causal"),
    Window((3, 2), stride=(1, 2), padding="causal", dilation=2),
]


@pytest.mark.parametrize("backend", ["reference", "shift"])
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("window", SLIDING, ids=repr)
def test_offsets_of_zero_change_nothing(window: Window, border: str, backend: str, assert_near: Near) -> None:
    window = replace(window, border=border)
    for ones in ("", "p"):
        kernel, value = case(window, (6, 7), ones)
        offsets = torch.zeros(2, 4, 2, window.taps, *window.output_size((6, 7)), dtype=torch.float64)
        plain = local_sum(kernel, value, window, backend=backend)
        moved = local_sum(kernel, value, window, offsets=offsets, backend=backend)
        assert_near(moved, plain)
        weight = torch.randn_like(plain)
        for found, exact in zip(
            *(torch.autograd.grad(y, (kernel, value), weight) for y in (moved, plain)), strict=True
        ):
            assert_near(found, exact)


def first_place(window: Window, length: int, axis: int) -> int:
    """Where the first tap of the first output lies, by each padding's rule."""
    reach = window.dilations[axis] * (window.sizes[axis] - 1)
    if window.padding != "same":
        return -reach if window.padding == "causal" else -(reach // 2)
    outputs = -(-length // window.strides[axis])
    return -(max((outputs - 1) * window.strides[axis] + reach + 1 - length, 0) // 2)


@pytest.mark.parametrize("backend", ["reference", "shift"])
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("window", SLIDING, ids=repr)
def test_whole_offsets_move_the_taps(window: Window, groups: int, border: str, backend: str, assert_near: Near) -> None:
    window, size = replace(window, border=border), (6, 7)
    kernel, value = case(window, size)
    grid = window.output_size(size)
    offsets = torch.randint(-20, 21, (2, groups, 2, window.taps, *grid)).double()  # farther than one reflection
    flat = value.flatten(1, 3)
    patches = torch.zeros(2, 8, window.taps, *grid, dtype=torch.float64)
    for b, n, tap, row, column in product(range(2), range(groups), *map(range, patches.shape[2:])):
        pixel = []
        for axis, (output, number) in enumerate(((row, tap // window.sizes[1]), (column, tap % window.sizes[1]))):
            place = output * window.strides[axis] + number * window.dilations[axis]
            place += first_place(window, size[axis], axis) + int(offsets[b, n, axis, tap, row, column])
            pixel.append(stands_at(place, size[axis], border))
        if -1 not in pixel:
            share = slice(n * 8 // groups, (n + 1) * 8 // groups)
            patches[b, share, tap, row, column] = flat[b, share, pixel[0], pixel[1]].detach()
    expected = torch.einsum("bgoikhw,bgiskhw->bgoshw", kernel, patches.unflatten(1, (2, 2, 2)))
    assert_near(local_sum(kernel, value, window, offsets=offsets, backend=backend), expected)


def between_pixels(*shape: int, farthest: int = 2) -> Tensor:
    """Offsets that lie between pixels: whole ones plus 0.2 to 0.8, so that their slope is one-sided nowhere."""
    whole = torch.randint(-farthest, farthest, shape).double()
    return (whole + 0.2 + 0.6 * torch.rand(shape, dtype=torch.float64)).requires_grad_()


@pytest.mark.parametrize("backend", ["reference", "shift"])
@pytest.mark.parametrize(("border", "mode"), [("zeros", "zeros"), ("replicate", "border"), ("reflect", "reflection")])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("taps", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (1, 1, 1), (3, 1, 2)])
def test_offsets_between_pixels_are_the_bilinear_sampling_of_torch(
    taps: int, stride: int, dilation: int, groups: int, border: str, mode: str, backend: str, assert_near: Near
) -> None:
    window, size = Window(taps, stride=stride, dilation=dilation, border=border), (6, 7)
    kernel, value = case(window, size)
    grid = window.output_size(size)
    offsets = between_pixels(2, groups, 2, window.taps, *grid)
    rows, columns = (torch.arange(length, dtype=torch.float64) * stride for length in grid)
    by_group = []
    for n, share in enumerate(value.flatten(1, 3).chunk(groups, dim=1)):
        seen = []
        for tap, (down, right) in enumerate(product(range(taps), range(taps))):
            row = rows[:, None] + dilation * (down - taps // 2) + offsets[:, n, 0, tap]
            column = columns + dilation * (right - taps // 2) + offsets[:, n, 1, tap]
            points = torch.stack([2 * column / (size[1] - 1) - 1, 2 * row / (size[0] - 1) - 1], dim=3)
            seen.append(F.grid_sample(share, points, padding_mode=mode, align_corners=True))
        by_group.append(torch.stack(seen, dim=2))
    patches = torch.cat(by_group, dim=1).unflatten(1, (2, 2, 2))
    expected = torch.einsum("bgoikhw,bgiskhw->bgoshw", kernel, patches)
    found = local_sum(kernel, value, window, offsets=offsets, backend=backend)
    assert_near(found, expected)
    weight, inputs = torch.randn_like(expected), (kernel, value, offsets)
    for mine, theirs in zip(*(torch.autograd.grad(y, inputs, weight) for y in (found, expected)), strict=True):
        assert_near(mine, theirs)


@pytest.mark.parametrize("backend", ["reference", "shift"])
@pytest.mark.parametrize(
    ("window", "size"),
    [
        (Window(3, dims=1), (4,)),
        (Window(2, stride=2, padding="same", border="circular"), (3, 2)),
        (Window((1, 3), stride=(1, 2), border="reflect"), (2, 3)),
        (Window((1, 2, 1), stride=(1, 1, 2), padding="causal", border="replicate", dims=3), (2, 1, 3)),
    ],
)
def test_offsets_between_pixels_have_the_right_slope(window: Window, size: tuple[int, ...], backend: str) -> None:
    grid = window.output_size(size)
    kernel = torch.randn(1, 1, 1, 1, window.taps, *grid, dtype=torch.float64, requires_grad=True)
    value = torch.randn(1, 1, 1, 2, *size, dtype=torch.float64, requires_grad=True)
    offsets = between_pixels(1, 2, window.dims, window.taps, *grid, farthest=1)

    def summed(kernel: Tensor, value: Tensor, offsets: Tensor) -> Tensor:
        return local_sum(kernel, value, window, offsets=offsets, backend=backend)

    assert torch.autograd.gradcheck(summed, (kernel, value, offsets))


@pytest.mark.parametrize("name", WINDOWS)
def test_window_in_common_goes_through_json_and_prints_as_its_python(name: str) -> None:
    window = WINDOWS[name]
    assert Spec.from_json(window.to_json()) == window
    assert eval(repr(window), {"Block": Block, "Global": Global}) == window


EACH = "must be an integer or hold one for each dimension"


@pytest.mark.parametrize(
    ("size", "fields", "message"),
    [
        (3, {"dims": 4}, r"^dims has 4: must be one of 1, 2, 3\.$"),
        (0, {}, r"^size has 0: must be an integer of at least 1\.$"),
        (2.0, {}, r"^size has 2\.0: must be an integer of at least 1\.$"),
        ((3, 3, 3), {}, rf"^size has \(3, 3, 3\), dims has 2: {EACH}\.$"),
        (3, {"halo": -1}, r"^halo has -1: must be an integer of at least 0\.$"),
        (3, {"halo": (1,)}, rf"^halo has \(1,\), dims has 2: {EACH}\.$"),
        (3, {"shift": -1}, r"^shift has -1: must be an integer of at least 0\.$"),
        (3, {"shift": (1, 0), "dims": 1}, rf"^shift has \(1, 0\), dims has 1: {EACH}\.$"),
        (3, {"stride": 0}, r"^stride has 0: must be an integer of at least 1\.$"),
        (3, {"stride": (1,)}, rf"^stride has \(1,\), dims has 2: {EACH}\.$"),
        (
            3,
            {"border": "shift"},
            r"^border has 'shift': must be one of 'zeros', 'mask', 'reflect', 'replicate', 'circular'\.$",
        ),
        (4, {"shift": 4}, r"^shift has 4, size has 4: blocks move by less than a block\.$"),
        ((4, 2), {"shift": (3, 2)}, r"^shift has \(3, 2\), size has \(4, 2\): blocks move by less than a block\.$"),
        (
            4,
            {"stride": 3},
            r"^stride has 3, size has 4, shift has 0: both must be multiples of the stride, so that each block has as "
            r"many outputs\.$",
        ),
        (
            4,
            {"stride": 2, "shift": (2, 1)},
            r"^stride has 2, size has 4, shift has \(2, 1\): both must be multiples of the stride, so that each block "
            r"has as many outputs\.$",
        ),
    ],
)
def test_block_says_which_field_is_wrong(size: object, fields: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Block(size, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dims": 0}, r"^dims has 0: must be one of 1, 2, 3\.$"),
        ({"stride": 0}, r"^stride has 0: must be an integer of at least 1\.$"),
        ({"stride": (1, 1, 1)}, rf"^stride has \(1, 1, 1\), dims has 2: {EACH}\.$"),
        ({"grid": (2, 0)}, r"^grid has 0: must be an integer of at least 1\.$"),
        ({"grid": (2,)}, rf"^grid has \(2,\), dims has 2: {EACH}\.$"),
        ({"grid": (2, 3), "stride": 2}, r"^grid has \(2, 3\), stride has 2: give one of them\.$"),
    ],
)
def test_global_window_says_which_field_is_wrong(fields: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Global(**fields)


def test_global_window_says_what_it_needs_to_know() -> None:
    message = (
        r"^size has None: a global window has a tap for each pixel of the input\. Build it with size=\(rows, columns\)"
        r"\.$"
    )
    for ask in (Global().tap_grid, Global().reaches):
        with pytest.raises(SpecError, match=message):
            ask(None)
    message = (
        r"^window has Global\(grid=\(2, 3\)\): its outputs are no pixels, so taps have no place relative to them\.$"
    )
    with pytest.raises(ShapeError, match=message):
        Global(grid=(2, 3)).offsets((4, 4))
    with pytest.raises(SpecError, match=r"^grid has \(2, 3\), stride has 2: give one of them\.$"):
        Global(grid=(2, 3)).strided(2)


def test_one_number_is_the_grid_in_each_dimension() -> None:
    assert Global(grid=3, stride=(1, 1)).output_size((5, 6)) == (3, 3)
    assert Global(grid=3, dims=1).output_size((5,)) == (3,)


def test_input_that_a_halo_would_reflect_twice_is_refused() -> None:
    kernel, value = torch.zeros(1, 1, 1, 1, 1, 1, 1), torch.zeros(1, 1, 1, 1, 6, 3)
    message = (
        r"^value has 3 pixels in dimension 1, window reaches 3 beyond them: border 'reflect' reaches less than there "
        r"are pixels\. Use border='replicate'\.$"
    )
    with pytest.raises(ShapeError, match=message):
        local_sum(kernel, value, Block(3, halo=3, border="reflect"))
    assert local_sum(kernel, value, Block(3, halo=2, border="reflect")).shape == value.shape


@pytest.mark.parametrize(
    ("window", "shape", "message"),
    [
        (Block(4, halo=1), (1, 1, 1, 1, 16, 1, 1), "k=16 in `b g o i k h w`: must be 36, or 1 to be constant along k"),
        (Block(4, stride=2), (1, 1, 1, 1, 16, 6, 3), "h=6 in `b g o i k h w`: must be 3, or 1 to be constant along h"),
        (Global(), (1, 1, 1, 1, 25, 1, 1), "k=25 in `b g o i k h w`: must be 30, or 1 to be constant along k"),
        (Global(grid=(2, 3)), (1, 1, 1, 1, 30, 2, 5), "w=5 in `b g o i k h w`: must be 3, or 1 to be constant along w"),
    ],
)
def test_kernel_that_does_not_fit_a_window_in_common_is_refused(
    window: Geometry, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ShapeError, match=rf"^kernel has {message}\.$"):
        local_sum(torch.zeros(shape), torch.zeros(1, 1, 1, 1, 6, 5), window)


SLIDES = r"offsets need a sliding window, whose border is not 'shift'\.$"


@pytest.mark.parametrize(
    ("window", "shape", "message"),
    [
        (Block(3), (2, 1, 2, 9, 6, 5), rf"^window has Block\(3\): {SLIDES}"),
        (Global(), (2, 1, 2, 30, 6, 5), rf"^window has Global\(\): {SLIDES}"),
        (Window(3, border="shift"), (2, 1, 2, 9, 6, 5), rf"^window has Window\(3, border='shift'\): {SLIDES}"),
        (
            Window(3),
            (2, 3, 2, 9, 6, 5),
            r"^offsets has n=3 groups, value has 4 channels: n must divide them\. Divisors of 4: 1, 2, 4\.$",
        ),
        (Window(3), (2, 1, 1, 9, 6, 5), r"^offsets has d=1 in `b n d k h w`: must be 2\.$"),
        (Window(3), (2, 1, 2, 1, 6, 5), r"^offsets has k=1 in `b n d k h w`: must be 9\.$"),
        (Window(3, stride=2), (2, 1, 2, 9, 6, 5), r"^offsets has h=6 in `b n d k h w`: must be 3\.$"),
        (Window(3), (1, 1, 2, 9, 6, 5), r"^offsets has b=1 in `b n d k h w`: must be 2\.$"),
        (
            Window(3),
            (2, 18, 6, 5),
            r"^offsets has shape \(2, 18, 6, 5\) with 4 axes: must have 6, `b n d k h w`\.$",
        ),
    ],
)
def test_offsets_that_do_not_fit_are_refused(window: Geometry, shape: tuple[int, ...], message: str) -> None:
    kernel, value = torch.zeros(1, 1, 1, 1, 1, 1, 1), torch.zeros(2, 2, 1, 2, 6, 5)
    with pytest.raises(ShapeError, match=message):
        local_sum(kernel, value, window, offsets=torch.zeros(shape))


@pytest.mark.parametrize("shape", [(2, 9, 4, 4), (2, 4, 3, 4), (9, 4)])
def test_features_that_no_window_can_write_are_refused(shape: tuple[int, ...]) -> None:
    text = str(shape).replace("(", r"\(").replace(")", r"\)")
    message = (
        rf"^y has shape {text}, window has 9 taps and an output grid of \(3, 4\) for \(5, 7\): the last axes `k h w` "
        r"must be these\.$"
    )
    with pytest.raises(ShapeError, match=message):
        scatter(torch.zeros(shape), Window(3, stride=2), (5, 7))


@pytest.mark.parametrize("border", ["reflect", "replicate", "circular", "shift"])
def test_window_that_continues_the_input_is_no_place_to_write(border: str) -> None:
    message = rf"^window has border='{border}': what is written outside is lost, use 'zeros'\.$"
    with pytest.raises(SpecError, match=message):
        scatter(torch.zeros(2, 9, 5, 7), Window(3, border=border), (5, 7))
