"""Attention to windows: against torch's attention, and fused against the weights in memory."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, vmap
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from dynops.errors import ShapeError, SpecError
from dynops.ops import Block, Window, attended_by, attended_sum, fused_native, on_cuda

Near = Callable[[Tensor, Tensor], None]
Inputs = list[Tensor | None]
fused = pytest.mark.skipif(not on_cuda.INSTALLED, reason="needs Triton")
ENGINES = ["native", pytest.param("triton", marks=fused)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
PADS = {"zeros": "constant", "mask": "constant", "reflect": "reflect", "circular": "circular"}
CASES: dict[str, tuple[Window, dict[str, Any]]] = {
    "both": (Window(3), {}),
    "fan-out": (Window(3, stride=2, border="mask"), {"o": 3}),
    "keys alone": (Window((1, 3), stride=(1, 2), border="mask"), {"e": 0}),
    "positions alone": (Window((3, 1), dilation=(2, 1), border="mask"), {"d": 0}),
    "a static bias": (Window(3, dilation=3, border="mask"), {"e": 1, "shared": True, "s": 1}),
    "even": (Window((1, 4), padding="same", border="circular"), {"d": 1}),
    "sequence": (Window(3, dims=1, padding="causal"), {"o": 2}),
    "masked sequence": (Window(3, dims=1, stride=2, border="mask"), {"e": 0}),
    "many channels": (Window((1, 2), padding="same"), {"size": (2, 3), "s": 40, "d": 37, "e": 33, "g": 1}),
    "many to sum": (Window((1, 2), padding="same"), {"size": (2, 3), "s": 40, "e": 1, "g": 1, "o": 2}),
    "several programs": (Window((1, 2), padding="same", border="mask"), {"size": (9, 17), "g": 1}),
}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def device(engine: str) -> str:
    return "cuda" if engine == "triton" and not on_cuda.INTERPRETED else "cpu"


def drawn(
    window: Window,
    size: tuple[int, ...] = (3, 5),
    *,
    b: int = 1,
    g: int = 2,
    o: int = 1,
    d: int = 3,
    e: int = 2,
    s: int = 3,
    shared: bool = False,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
) -> Inputs:
    """Query, key, what is asked, positions and value; None for a pair without channels."""
    size = size[-window.dims :]
    outputs = window.output_size(size)
    shapes = [(b, g, o, d, *outputs), (b, g, d, *size), (b, g, o, e, *outputs), (1 if shared else g, e, window.taps)]
    generator = torch.Generator().manual_seed(0)
    made: Inputs = []
    for shape, channels in zip([*shapes, (b, g, s, *size)], (d, d, e, e, 1), strict=True):
        one = torch.randn(shape, generator=generator, dtype=torch.float64) * (channels or 1) ** -0.25
        made.append(one.to(device, dtype) if channels else None)
    return made


def results(inputs: Inputs, window: Window, backend: str | None) -> list[Tensor]:
    """The sum and the gradients of a weighing of it."""
    given = [None if each is None else each.detach().requires_grad_() for each in inputs]
    y = attended_sum(*given, window, backend=backend)
    return [y.detach(), *torch.autograd.grad(y, [each for each in given if each is not None], slope_of(y))]


def slope_of(y: Tensor) -> Tensor:
    return torch.randint(-16, 17, y.shape, generator=torch.Generator().manual_seed(1)).to(y) / 8


def attention_of_torch(inputs: list[Tensor], window: Window) -> Tensor:
    """Every output attends to all pixels of the padded image, the bias of those outside its window is -inf."""
    query, key, asked, positions, value = inputs
    (b, g, o, _, rows, columns), (h, w) = query.shape, value.shape[3:]
    reach = [dilation * (size // 2) for size, dilation in zip(window.sizes, window.dilations, strict=True)]
    margins = (reach[1], reach[1], reach[0], reach[0])
    key, value = (
        F.pad(each.flatten(1, 2), margins, mode=PADS[window.border]).unflatten(1, (g, -1)) for each in (key, value)
    )
    products = torch.einsum("bgoehw,gek->bgokhw", asked, positions.expand(g, -1, -1))
    across = value.shape[4]
    bias = torch.full((b, g, o, rows * columns, value.shape[3] * across), float("-inf"), dtype=value.dtype)
    for tap, row, column in product(range(window.taps), range(rows), range(columns)):
        down = row * window.strides[0] + tap // window.sizes[1] * window.dilations[0]
        right = column * window.strides[1] + tap % window.sizes[1] * window.dilations[1]
        if window.border != "mask" or (0 <= down - reach[0] < h and 0 <= right - reach[1] < w):
            bias[:, :, :, row * columns + column, down * across + right] = products[:, :, :, tap, row, column]
    keys, values = (each.flatten(3).transpose(2, 3)[:, :, None].expand(-1, -1, o, -1, -1) for each in (key, value))
    y = F.scaled_dot_product_attention(query.flatten(4).transpose(3, 4), keys, values, bias, scale=1.0)
    return y.transpose(3, 4).unflatten(4, (rows, columns))


@pytest.mark.parametrize("engine", ["shift", *ENGINES])
@pytest.mark.parametrize(
    "window",
    [
        Window(3),
        Window((3, 1), stride=(2, 1), border="mask"),
        Window((1, 5), dilation=(1, 2), border="mask"),
        Window(3, stride=2, border="reflect"),
        Window((1, 3), dilation=(1, 2), border="circular"),
    ],
    ids=["zeros", "strided", "dilated", "reflect", "circular"],
)
def test_it_is_the_attention_of_torch(window: Window, engine: str, device: str, assert_near: Near) -> None:
    inputs = drawn(window, (3, 5), o=2)
    given = [each.clone().requires_grad_() for each in inputs]
    expected = attention_of_torch(given, window)
    exact = [expected, *torch.autograd.grad(expected, given, slope_of(expected))]
    found = results([each.to(device) for each in inputs], window, engine)
    for each, one in zip(found, exact, strict=True):
        assert_near(each.cpu(), one.detach())


def test_other_windows_have_the_weights_in_memory() -> None:
    query, key, value = torch.randn(1, 1, 2, 3, 4, 4), torch.randn(1, 1, 3, 4, 4), torch.randn(1, 1, 2, 4, 4)
    assert attended_sum(query, key, None, None, value, Block(2)).shape == (1, 1, 2, 2, 4, 4)


@pytest.mark.parametrize("case", CASES)
def test_fused_equals_the_weights_in_memory(case: str, engine: str, device: str, assert_near: Near) -> None:
    window, sizes = CASES[case]
    inputs = drawn(window, device=device, **sizes)
    for found, exact in zip(results(inputs, window, engine), results(inputs, window, "shift"), strict=True):
        assert found.shape == exact.shape
        assert_near(found, exact)


@pytest.mark.parametrize(
    ("engine", "dtype"),
    [("native", torch.float32), *(pytest.param("triton", dtype, marks=fused) for dtype in DTYPES[1:])],
)
def test_results_are_rounded_once(dtype: torch.dtype, engine: str, device: str, assert_near: Near) -> None:
    window = Window(3, border="mask")
    inputs = drawn(window, (3, 4), dtype=dtype, device=device)
    exact = results([each.double() for each in inputs], window, "shift")
    for found, each in zip(results(inputs, window, engine), exact, strict=True):
        assert found.dtype == dtype
        assert_near(found, each)


def test_inputs_of_several_dtypes_are_summed_in_the_most_exact(engine: str, device: str, assert_near: Near) -> None:
    window = Window((1, 3))
    inputs = drawn(window, device=device)
    for place, dtype in enumerate((torch.float16, torch.float32, torch.float64, torch.float32, torch.float32)):
        inputs[place] = inputs[place].to(dtype)
    found, exact = results(inputs, window, engine), results([each.double() for each in inputs], window, "shift")
    for each, one, given in zip(found, exact, [inputs[4], *inputs], strict=True):
        assert each.dtype == given.dtype
        assert_near(each, one)


def test_channels_may_lie_beside_each_other_and_stay_there_on_a_gpu(
    engine: str, device: str, assert_near: Near
) -> None:
    window = Window((1, 3), stride=(2, 1), border="mask")
    inputs = drawn(window, o=2, device=device)
    query, key, asked, positions, value = inputs
    key, value = (each.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2) for each in (key, value))
    query, asked = (each.permute(0, 4, 5, 1, 2, 3).contiguous().permute(0, 3, 4, 5, 1, 2) for each in (query, asked))
    found = results([query, key, asked, positions, value], window, engine)
    for each, exact in zip(found, results(inputs, window, "shift"), strict=True):
        assert_near(each, exact)
    if engine == "native":
        return
    for each in found[:4]:
        assert each[(0, 0, *(0,) * (each.dim() - 5), slice(None), 0, 0)].is_contiguous()
    assert found[5][0, 0, :, 0, 0].is_contiguous()


def test_what_is_shared_is_not_copied(engine: str, device: str, assert_near: Near) -> None:
    window = Window((1, 3), border="mask")
    query, key, _, positions, value = drawn(window, (1, 4), o=2, e=1, device=device)
    one, bias = query[:, :1, :1], positions[:1]

    def summed(query: Tensor, key: Tensor, bias: Tensor, value: Tensor, backend: str) -> Tensor:
        asked = torch.ones((), dtype=bias.dtype, device=device).expand(1, 2, 2, 1, 1, 4)
        return attended_sum(query.expand(-1, 2, 2, -1, -1, -1), key, asked, bias, value, window, backend=backend)

    inputs = [each.detach().requires_grad_() for each in (one, key, bias, value)]
    found, exact = (summed(*inputs, backend) for backend in (engine, "shift"))
    assert_near(found, exact)
    for each, other in zip(*(torch.autograd.grad(y.square().sum(), inputs) for y in (found, exact)), strict=True):
        assert_near(each, other)


@pytest.mark.parametrize("engine", [pytest.param("triton", marks=fused)])
def test_offsets_of_64_bits_give_the_same(monkeypatch: pytest.MonkeyPatch, engine: str, device: str) -> None:
    window = Window((1, 3), stride=2)
    inputs = drawn(window, g=1, device=device)
    narrow = results(inputs, window, engine)
    monkeypatch.setattr("dynops.ops.attended_on_cuda.is_wide", lambda *tensors: True)
    for wide, each in zip(results(inputs, window, engine), narrow, strict=True):
        assert torch.equal(wide, each)


def test_large_scores_overflow_nowhere(engine: str, device: str, assert_near: Near) -> None:
    window = Window((1, 5), border="mask")
    query, key, asked, positions, value = drawn(window, (2, 5), device=device, dtype=torch.float32)
    # whole thousands, so that scores of a million are exact and each weight is 1 divided by the number of the highest
    query, key, asked, positions = ((1000 * each).round() for each in (query, key, asked, positions))
    inputs: Inputs = [query, key, asked, positions, value]
    found = results(inputs, window, engine)
    exact = results([each.double() for each in inputs], window, "shift")
    assert_near(found[0], exact[0])
    assert all(each.isfinite().all() for each in found)
    assert_near(found[5], exact[5])


def test_a_window_with_no_pixel_inside_gives_zero(engine: str, device: str) -> None:
    window = Window(2, padding="same", dilation=10, border="mask")
    for each in results(drawn(window, (2, 2), device=device), window, engine):
        assert each.eq(0).all()


class Largest(TorchDispatchMode):
    """Notes the most elements of a result."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [each.numel() for each in tree_iter(result) if isinstance(each, Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return result


def test_fused_never_holds_weights(engine: str, device: str) -> None:
    window = Window(3, border="mask")
    inputs = drawn(window, (4, 5), g=1, device=device)
    weights = 9 * 20
    for backend, most in ((engine, inputs[4].numel()), ("shift", weights)):
        with Largest() as largest:
            results(inputs, window, backend)
        assert largest.elements == most


@pytest.mark.parametrize(("border", "missing"), [("mask", ()), ("zeros", (0, 1)), ("circular", (2, 3))])
def test_fused_has_right_derivatives_of_both_orders(
    border: str, missing: tuple[int, ...], engine: str, device: str
) -> None:
    window = Window((1, 3), border=border)
    inputs = drawn(window, (1, 3), g=1, s=2, d=2, e=1, device=device)
    given = [None if place in missing else each.requires_grad_() for place, each in enumerate(inputs)]
    apply = partial(attended_sum, window=window, backend=engine)
    assert gradcheck(apply, given, fast_mode=True)
    assert gradgradcheck(apply, given, fast_mode=True)


def test_fused_is_mapped_over_an_outer_axis(engine: str, device: str, assert_near: Near) -> None:
    window = Window((1, 3), border="mask")
    query, key, asked, positions, value = drawn(window, (1, 3), g=1, device=device)
    values = torch.stack([value, 2 * value, -value])

    def loss(positions: Tensor, value: Tensor) -> Tensor:
        return attended_sum(query, key, asked, positions, value, window, backend=engine).square().sum()

    found = vmap(grad(loss, argnums=(0, 1)), in_dims=(None, 0))(positions, values)
    loops = [grad(loss, argnums=(0, 1))(positions, each) for each in values]
    for each, exact in zip(found, zip(*loops, strict=True), strict=True):
        assert_near(each, torch.stack(exact))
    sums = vmap(lambda x: attended_sum(query, key, asked, positions, x, window, backend=engine))(values)
    assert_near(sums[1], 2 * attended_sum(query, key, asked, positions, value, window, backend="shift"))


def test_fused_compiles_in_one_graph(engine: str, device: str, assert_near: Near) -> None:
    window = Window((1, 3), stride=2, border="mask")
    inputs = [each.requires_grad_() for each in drawn(window, (3, 5), g=1, device=device)]
    y = torch.compile(attended_sum, fullgraph=True, backend="aot_eager")(*inputs, window, backend=engine)
    expected = attended_sum(*inputs, window, backend="shift")
    assert_near(y, expected)
    found, exact = (torch.autograd.grad(each.square().sum(), inputs) for each in (y, expected))
    for each, one in zip(found, exact, strict=True):
        assert_near(each, one)
    torch.compiler.reset()


def test_operators_pass_the_checks_of_torch(engine: str, device: str) -> None:
    window, numbers = Window((1, 3), border="mask"), [1, 3, 1, 1, 1, 1, 0, 1, 2, 3]
    query, key, asked, positions, value = drawn(window, (2, 3), g=2, o=2, device=device, dtype=torch.float32)
    inputs = (query, key[:, :, None], asked[:, :1].expand(-1, 2, -1, -1, -1, -1), positions, value[:, :, None])
    torch.library.opcheck(torch.ops.dynops.attended_sum, (*inputs, True, numbers, engine))
    y, logsumexp = torch.ops.dynops.attended_sum(*inputs, True, numbers, engine)
    gradients = torch.ops.dynops.attended_gradients
    torch.library.opcheck(gradients, (*inputs, logsumexp, torch.randn_like(y), True, numbers, engine))


def test_no_images_have_no_sum_and_gradients_of_zero(engine: str, device: str) -> None:
    y, *_, positions, _ = results(drawn(Window(3), b=0, device=device), Window(3), engine)
    assert y.shape == (0, 2, 1, 3, 3, 5)
    assert not positions.any()


def test_axes_that_do_not_fit_are_named() -> None:
    query, key, asked, positions, value = drawn(Window(3))
    with pytest.raises(ShapeError, match=r"^positions has k=8"):
        attended_sum(query, key, asked, positions[..., 1:], value, Window(3))
    with pytest.raises(ShapeError, match=r"^query has d=2"):
        attended_sum(query[:, :, :, 1:], key, asked, positions, value, Window(3))
    with pytest.raises(ShapeError, match=r"^asked has h=2"):
        attended_sum(query, key, asked[..., 1:, :], positions, value, Window(3))
    with pytest.raises(ShapeError, match=r"^key has w=4"):
        attended_sum(query, key[..., 1:], asked, positions, value, Window(3))


def test_pairs_that_are_not_whole_are_named() -> None:
    query, key, asked, positions, value = drawn(Window(3))
    message = r"^key has None: query and key come together\. Give both, or none of them\.$"
    with pytest.raises(SpecError, match=message):
        attended_sum(query, None, asked, positions, value, Window(3))
    with pytest.raises(SpecError, match=r"^asked has None: asked and positions come together\."):
        attended_sum(query, key, None, positions, value, Window(3))
    message = r"^query has None, asked has None: there are no scores\. Give query and key, or asked and positions\.$"
    with pytest.raises(SpecError, match=message):
        attended_sum(None, None, None, None, value, Window(3))


def test_a_backend_that_takes_no_such_sum_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = drawn(Window(3))
    with pytest.raises(SpecError, match=r"^backend has 'cuda': must be one of 'native', 'triton',"):
        attended_sum(*inputs, Window(3), backend="cuda")
    monkeypatch.setattr(on_cuda, "INTERPRETED", False)
    message = r"^backend has 'triton': it takes no such sum, as the value is on cpu\. Leave the choice to dynops\.$"
    with pytest.raises(SpecError, match=message):
        attended_sum(*inputs, Window(3), backend="triton")


@pytest.mark.parametrize(
    "window",
    [
        Window((5, 3), border="mask"),
        Window((3, 1), stride=(3, 1)),
        Window((4, 2), padding="same", stride=(2, 1), dilation=(3, 1), border="mask"),
    ],
    ids=["overlapping", "apart", "strided and dilated"],
)
def test_bands_of_rows_give_what_one_band_does(
    window: Window, monkeypatch: pytest.MonkeyPatch, assert_near: Near
) -> None:
    inputs = drawn(window, (23, 5), b=2, o=2, dtype=torch.float32)
    whole = results(inputs, window, "native")
    monkeypatch.setattr(fused_native, "CACHED", 1)
    for found, exact in zip(results(inputs, window, "native"), whole, strict=True):
        assert_near(found, exact.double())


def test_threads_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    window, threads = Window(3, border="mask"), torch.get_num_threads()
    inputs = drawn(window, (40, 9), dtype=torch.float32)
    monkeypatch.setattr(fused_native, "CACHED", 1)
    try:
        made = []
        for number in (1, 2, 3, 3):
            torch.set_num_threads(number)
            made.append(results(inputs, window, "native"))
    finally:
        torch.set_num_threads(threads)
    for each in made[1:]:
        assert all(torch.equal(*pair) for pair in zip(each, made[0], strict=True))


@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, -86.0), (torch.float64, -700.0)])
def test_small_weights_are_exact_to_the_last_places(dtype: torch.dtype, least: float) -> None:
    """Every second window of two taps sees 0 and 1: its sum is the weight of the second, e^a / (1 + e^a)."""
    window, value = Window(2, padding="causal", dims=1), torch.tensor([0.0, 1.0], dtype=dtype).repeat(2000)

    def weights(scores: Tensor) -> Tensor:
        asked, positions = scores.repeat_interleave(2)[(None,) * 4], torch.tensor([[[0.0, 1.0]]], dtype=dtype)
        y = attended_sum(None, None, asked, positions, value[None, None, None], window, backend="native")
        return y.flatten()[1::2]

    scores = torch.linspace(least, 0, 2000, dtype=dtype)
    exact = scores.double().sigmoid()
    assert ((weights(scores).double() - exact) / exact).abs().max() < 6 * torch.finfo(dtype).eps
    assert weights(torch.full_like(scores, 1.1 * least)).eq(0).all()


def test_a_nan_spoils_only_the_windows_that_see_it() -> None:
    window = Window(3, border="mask")
    query, key, asked, positions, value = drawn(window, (6, 20), dtype=torch.float32)
    key[0, 1, 0, 2, 3] = float("nan")
    y = attended_sum(query, key, asked, positions, value, window, backend="native")
    spoilt = torch.zeros(2, 6, 20, dtype=torch.bool)
    spoilt[1, 1:4, 2:5] = True
    assert torch.equal(y.isnan(), spoilt[None, :, None, None].expand_as(y))


def test_half_precision_has_the_weights_in_memory_on_a_cpu() -> None:
    window = Window(3, border="mask")
    assert attended_by(torch.zeros(1, 1, 1, 3, 3), window) == "native"
    assert attended_by(torch.zeros(1, 1, 1, 3, 3, dtype=torch.bfloat16), window) is None
    assert attended_by(torch.zeros(1, 1, 1, 3, 3), window, "shift") is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_gpu_equals_the_weights_in_memory(case: str, dtype: torch.dtype, assert_near: Near) -> None:
    window, sizes = CASES[case]
    inputs = drawn(window, dtype=dtype, device="cuda", **sizes | {"size": (29, 37), "b": 2})
    exact = results([None if each is None else each.double() for each in inputs], window, "shift")
    for found, each in zip(results(inputs, window, "triton"), exact, strict=True):
        scale = each.abs().max().log2().ceil().exp2().item()  # a power of two, which rounds nothing
        assert_near(found / scale, each / scale)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_gpu_gives_the_same_bits_every_time_and_holds_no_weights() -> None:
    window = Window(7)
    inputs = drawn(window, (56, 56), b=4, g=4, s=8, d=8, e=8, dtype=torch.bfloat16, device="cuda")
    first = results(inputs, window, "triton")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    again = results(inputs, window, "triton")
    assert torch.cuda.max_memory_allocated() - before < 4 * 4 * 49 * 56 * 56 * 2
    assert all(torch.equal(*each) for each in zip(first, again, strict=True))
