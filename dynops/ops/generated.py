"""Local sums of generated kernels as operators of torch, whatever engine computes them.

The kernel K[b,g,k,p] = bias[g,k] + sum over r of weight[g,k,r] * hidden[b,r,p] is generated where it is needed, forward
and backward. Derivatives of higher orders are those of the formula as it is written, with a kernel in memory.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from dynops.ops import sums
from dynops.ops.sums import Numbers, empty_as

Gradients = tuple[Tensor, Tensor, Tensor, Tensor]
"""Those of hidden, weight, bias and value."""


class Engine(Protocol):
    """What computes sums of generated kernels on some device; see `generated_sum`."""

    def generated_sum(
        self, hidden: Tensor, weight: Tensor, bias: Tensor, value: Tensor, numbers: Numbers
    ) -> Tensor: ...

    def generated_gradients(
        self, hidden: Tensor, weight: Tensor, bias: Tensor, value: Tensor, slope: Tensor, numbers: Numbers
    ) -> Gradients: ...


ENGINES: dict[str, Engine] = {}
"""By name, as the operators' last argument has it; an engine of the same name takes sums of kernels in memory."""


def generated_sum(hidden: Tensor, weight: Tensor, bias: Tensor, value: Tensor, numbers: Numbers, engine: str) -> Tensor:
    """Sum K[b,g,k,p] * value[b,g,1,s,at(p,k)] over k, with a kernel K that is never in memory.

    Args:
        hidden: `b r h w` on the output's grid.
        weight: `g k r`.
        bias: `g k`.
        value: `b g 1 s h w`, continued by zeros.
        numbers: see `Numbers`.
        engine: one of `ENGINES`.
    """
    inputs = (hidden, weight, bias, value)
    take = torch.ops.dynops.generated_sum.default if sums.is_plain(*inputs) else GeneratedSum.apply
    return take(*inputs, numbers, engine)


def generate(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the kernel in memory, `b g 1 1 k h w`."""
    return (torch.einsum("gkr,brhw->bgkhw", weight, hidden) + bias[..., None, None])[:, :, None, None]


class GeneratedSum(torch.autograd.Function):
    """`generated_sum` with its derivatives, for autograd and `torch.func` alike."""

    @staticmethod
    def forward(hidden: Tensor, weight: Tensor, bias: Tensor, value: Tensor, numbers: Numbers, engine: str) -> Tensor:
        return torch.ops.dynops.generated_sum(hidden, weight, bias, value, numbers, engine)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:4])
        ctx.numbers, ctx.engine = inputs[4:]

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, value = ctx.saved_tensors
        # what may be differentiated again or mapped over is written out, of operations that can be
        again = torch.is_grad_enabled() or sums.is_transformed()
        take = written_out if again else torch.ops.dynops.generated_gradients.default
        return *take(hidden, weight, bias, value, slope, ctx.numbers, ctx.engine), None, None

    @staticmethod
    def vmap(info: Any, axes: Any, *inputs: Any) -> tuple[Tensor, int]:
        """Take one sum after the other."""
        made = [generated_sum(*sums.at_place(inputs, axes, place)) for place in range(info.batch_size)]
        return torch.stack(made), 0


def written_out(
    hidden: Tensor, weight: Tensor, bias: Tensor, value: Tensor, slope: Tensor, numbers: Numbers, engine: str
) -> Gradients:
    """Return the gradients, of a kernel in memory."""
    inputs = (hidden, weight, bias, value)
    dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    hidden, weight, bias, value, slope = (each.to(dtype) for each in (*inputs, slope))
    kernel = generate(hidden, weight, bias)
    own = sums.kernel_gradient(slope, value, [False, False], numbers, engine)[:, :, 0, 0]
    seen = sums.value_gradient(kernel, slope, list(value.shape[4:]), numbers, engine)
    made = (
        torch.einsum("gkr,bgkhw->brhw", weight, own),
        torch.einsum("bgkhw,brhw->gkr", own, hidden),
        own.sum((0, 3, 4)),
        seen,
    )
    hidden, weight, bias, value = (each.to(one.dtype) for each, one in zip(made, inputs, strict=True))
    return hidden, weight, bias, value


def _compute(hidden: Tensor, weight: Tensor, bias: Tensor, value: Tensor, numbers: Numbers, engine: str) -> Tensor:
    return ENGINES[engine].generated_sum(hidden, weight, bias, value, numbers)


def _fake(hidden: Tensor, weight: Tensor, bias: Tensor, value: Tensor, numbers: Numbers, engine: str) -> Tensor:
    return empty_as(value, 1, numbers[8:], engine)


def _compute_gradients(
    hidden: Tensor, weight: Tensor, bias: Tensor, value: Tensor, slope: Tensor, numbers: Numbers, engine: str
) -> Gradients:
    return ENGINES[engine].generated_gradients(hidden, weight, bias, value, slope, numbers)


def _fake_gradients(
    hidden: Tensor, weight: Tensor, bias: Tensor, value: Tensor, slope: Tensor, numbers: Numbers, engine: str
) -> Gradients:
    seen = empty_as(slope, 1, list(value.shape[4:]), engine).to(value.dtype)
    return torch.empty_like(hidden), weight.new_empty(weight.shape), bias.new_empty(bias.shape), seen


INPUTS = "Tensor hidden, Tensor weight, Tensor bias, Tensor value"
sums.register(f"generated_sum({INPUTS}, SymInt[] numbers, str engine) -> Tensor", _compute, _fake)
sums.register(
    f"generated_gradients({INPUTS}, Tensor slope, SymInt[] numbers, str engine) -> (Tensor, Tensor, Tensor, Tensor)",
    _compute_gradients,
    _fake_gradients,
)
