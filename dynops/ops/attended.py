"""Attention to the pixels of a window as operators of torch, whatever engine computes it.

Scores and their softmax are made where they are needed, forward and backward; between the two only the logarithm of
each softmax's denominator is kept. Derivatives of higher orders are those of the formula as it is written, with the
weights in memory.
"""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from dynops.ops import sums
from dynops.ops.sums import Numbers, empty_as

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Those of `Inputs`."""


class Inputs(NamedTuple):
    """What attention is made from: score[k,p] = query[:,p] . key[:,at(p,k)] + asked[:,p] . positions[:,k]."""

    query: Tensor
    """`b g o d h w` on the output's grid."""
    key: Tensor
    """`b g 1 d h w`, continued by zeros; d may be 0."""
    asked: Tensor
    """`b g o e h w` on the output's grid."""
    positions: Tensor
    """`g e k`, g of size 1 where they are shared; e may be 0."""
    value: Tensor
    """`b g 1 s h w`, continued by zeros."""


class Engine(Protocol):
    """What computes attention on some device; see `attended_sum`."""

    def attended_sum(self, inputs: Inputs, masked: bool, numbers: Numbers) -> tuple[Tensor, Tensor]: ...

    def attended_gradients(
        self, inputs: Inputs, logsumexp: Tensor, slope: Tensor, masked: bool, numbers: Numbers
    ) -> Gradients: ...


ENGINES: dict[str, Engine] = {}
"""By name, as the operators' last argument has it; an engine of the same name takes sums of kernels in memory."""


def attended_sum(inputs: Inputs, masked: bool, numbers: Numbers, engine: str) -> Tensor:
    """Sum softmax_k(score)[b,g,o,k,p] * value[b,g,1,s,at(p,k)] over k, with scores that are never in memory.

    Args:
        inputs: what scores are made from, and what is summed.
        masked: whether taps outside the input have no weight.
        numbers: see `Numbers`.
        engine: one of `ENGINES`.
    """
    take = torch.ops.dynops.attended_sum.default if sums.is_plain(*inputs) else AttendedSum.apply
    return take(*inputs, masked, numbers, engine)[0]


def summed_in(*tensors: Tensor) -> torch.dtype:
    """The dtype that scores and sums of such tensors have."""
    return torch.float64 if any(each.dtype == torch.float64 for each in tensors) else torch.float32


class AttendedSum(torch.autograd.Function):
    """`attended_sum` with its derivatives, for autograd and `torch.func` alike, and the logarithms that they need."""

    @staticmethod
    def forward(*given: Any) -> tuple[Tensor, Tensor]:
        return torch.ops.dynops.attended_sum(*given)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs[:5], output[1])
        ctx.masked, ctx.numbers, ctx.engine = inputs[5:]

    @staticmethod
    def backward(ctx: Any, slope: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, logsumexp = ctx.saved_tensors
        # what may be differentiated again or mapped over is written out, of operations that can be
        if torch.is_grad_enabled() or sums.is_transformed():
            made = written_out(Inputs(*inputs), slope, ctx.masked, ctx.numbers, ctx.engine)
        else:
            take = torch.ops.dynops.attended_gradients.default
            made = take(*inputs, logsumexp, slope, ctx.masked, ctx.numbers, ctx.engine)
        return *made, None, None, None

    @staticmethod
    def vmap(info: Any, axes: Any, *given: Any) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        """Take one sum after the other."""
        made = [AttendedSum.apply(*sums.at_place(given, axes, place)) for place in range(info.batch_size)]
        y, logsumexp = (torch.stack(each) for each in zip(*made, strict=True))
        return (y, logsumexp), (0, 0)


def written_out(inputs: Inputs, slope: Tensor, masked: bool, numbers: Numbers, engine: str) -> Gradients:
    """Return the gradients, of weights in memory."""
    dtype = summed_in(*inputs)
    query, key, asked, positions, value, slope = (each.to(dtype) for each in (*inputs, slope))
    positions = positions.expand(value.shape[1], -1, -1)
    size, alone = list(value.shape[4:]), [False, False]
    score = sums.kernel_gradient(query, key, alone, numbers, engine)  # b g o 1 k h w
    score = score + torch.einsum("bgoehw,gek->bgokhw", asked, positions)[:, :, :, None]
    if masked:
        score = score.masked_fill(~_inside(size, numbers, score.device), float("-inf"))
    weight = score.softmax(4)
    change = sums.kernel_gradient(slope, value, alone, numbers, engine)
    own = weight * (change - (weight * change).sum(4, keepdim=True))
    to_positions = torch.einsum("bgokhw,bgoehw->gek", own[:, :, :, 0], asked)
    made = (
        sums.local_sum(own, key, numbers, engine),
        sums.value_gradient(own, query, size, numbers, engine),
        torch.einsum("bgokhw,gek->bgoehw", own[:, :, :, 0], positions),
        to_positions.sum_to_size(inputs.positions.shape),
        sums.value_gradient(weight, slope, size, numbers, engine),
    )
    query, key, asked, positions, value = (each.to(one.dtype) for each, one in zip(made, inputs, strict=True))
    return query, key, asked, positions, value


def _inside(size: list[int], numbers: Numbers, device: torch.device) -> Tensor:
    """Whether tap k of output p sees a pixel, `k h w`."""
    sees = []
    for axis, length in enumerate(size):
        taps, stride, dilation, before, outputs = numbers[axis::2]
        place = torch.arange(taps, device=device)[:, None] * dilation - before
        place = place + torch.arange(outputs, device=device) * stride
        sees.append((place >= 0) & (place < length))
    return (sees[0][:, None, :, None] & sees[1][None, :, None, :]).flatten(0, 1)


def empty_results(inputs: Inputs, numbers: Numbers, engine: str) -> tuple[Tensor, Tensor]:
    """Memory for the sum and for the logarithm of each softmax's denominator, `b g o h w`."""
    o = inputs.query.shape[2]
    sizes = (*inputs.value.shape[:2], o, *numbers[8:])
    logsumexp = inputs.value.new_empty(sizes, dtype=summed_in(*inputs))
    return empty_as(inputs.value, o, numbers[8:], engine), logsumexp


def empty_gradients(inputs: Inputs) -> Gradients:
    """Memory for the gradients; an input that was expanded has one for each pixel."""
    query, key, asked, value = (torch.empty_like(each) for each in (*inputs[:3], inputs.value))
    return query, key, asked, inputs.positions.new_empty(inputs.positions.shape), value


def _compute(*given: Any) -> tuple[Tensor, Tensor]:
    *inputs, masked, numbers, engine = given
    return ENGINES[engine].attended_sum(Inputs(*inputs), masked, numbers)


def _fake(*given: Any) -> tuple[Tensor, Tensor]:
    *inputs, _, numbers, engine = given
    return empty_results(Inputs(*inputs), numbers, engine)


def _compute_gradients(*given: Any) -> Gradients:
    *inputs, logsumexp, slope, masked, numbers, engine = given
    return ENGINES[engine].attended_gradients(Inputs(*inputs), logsumexp, slope, masked, numbers)


def _fake_gradients(*given: Any) -> Gradients:
    return empty_gradients(Inputs(*given[:5]))


INPUTS = "Tensor query, Tensor key, Tensor asked, Tensor positions, Tensor value"
HOW = "bool masked, SymInt[] numbers, str engine"
sums.register(f"attended_sum({INPUTS}, {HOW}) -> (Tensor, Tensor)", _compute, _fake)
sums.register(
    f"attended_gradients({INPUTS}, Tensor logsumexp, Tensor slope, {HOW}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _compute_gradients,
    _fake_gradients,
)
