"""Networks of one kind as one: their weights stacked, their batches side by side, each with gradients of its own."""

import copy
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from dynops.errors import DynopsError, SpecError
from dynops.training.feed import Feed


class Together(nn.Module):
    """Networks of one kind, applied to as many batches at once: `n b c h w` to `n b ...`.

    A convolution becomes one of n groups. Parameters and buffers have a first axis n, under the names that they have
    in each network; running statistics follow each network's own batches.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        """Stack copies of the networks' weights.

        Args:
            networks: one or more that differ in nothing but the values of parameters and buffers.
        """
        super().__init__()
        self.one = copy.deepcopy(networks[0])
        states = [_state(network) for network in networks]
        for name, tensor in _state(self.one).items():
            tensor.data = torch.stack([state[name].detach() for state in states])

    def forward(self, x: Tensor) -> Tensor:
        return torch.vmap(self._apply_one, randomness="different")(_state(self.one), x)

    def unstack(self, networks: Sequence[nn.Module]) -> None:
        """Copy each network's weights back into it."""
        for name, stacked in _state(self.one).items():
            for network, own in zip(networks, stacked.detach(), strict=True):
                _state(network)[name].data.copy_(own)

    def _apply_one(self, state: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(self.one, state, (x,))


class FeedTogether:
    """The feeds of several seeds side by side: `(inputs, targets)`, `n b c h w` and `n b ...`."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        """Take the feeds of each seed, with as many and as large batches as every other's."""
        self._feeds = feeds

    @property
    def epoch(self) -> int:
        """Which order and which random changes the next iteration has, for all seeds."""
        return self._feeds[0].epoch

    @epoch.setter
    def epoch(self, number: int) -> None:
        for each in self._feeds:
            each.epoch = number

    def __len__(self) -> int:
        return len(self._feeds[0])

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for pairs in zip(*self._feeds, strict=True):
            inputs, targets = zip(*pairs, strict=True)
            yield torch.stack(inputs), torch.stack(targets)

    def close(self) -> None:
        """Close each seed's."""
        for each in self._feeds:
            each.close()


def clip_each(parameters: Iterable[Tensor], largest: float) -> None:
    """Scale each network's gradient down to a norm: g[n] * min(1, largest / |g[n]|), as torch clips one network's.

    Args:
        parameters: their gradients have a first axis n.
        largest: norm of the gradient of all parameters of a network.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = torch.stack([gradient.reshape(len(gradient), -1).norm(dim=1) for gradient in gradients]).norm(dim=0)
    shares = (largest / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(shares.view(-1, *(1,) * (gradient.dim() - 1)))


def check_together(network: nn.Module, x: Tensor) -> None:
    """Raise a SpecError unless every layer can be applied to several networks at once.

    Args:
        network: one of them; it is left as it is.
        x: some of its inputs, `b c h w`.
    """
    _slope_of_sum(copy.deepcopy(network), x)
    trial = Together([network, network])
    entered = [""]
    _note_layers(trial.one, entered)
    try:
        _slope_of_sum(trial, torch.stack([x, x]))
    except DynopsError:
        raise
    except (RuntimeError, ValueError) as error:
        layer = trial.one.get_submodule(entered[-1])
        raise SpecError(
            f"network has layer {entered[-1]!r} of type {type(layer).__name__}: it cannot be applied to several seeds "
            f"at once ({str(error).strip().splitlines()[0]}). Train the seeds one by one, without `--batch-seeds`."
        ) from error


def _note_layers(network: nn.Module, entered: list[str]) -> None:
    """Keep the names of the layers whose forward runs, the innermost last."""

    def leave(layer: nn.Module, inputs: object, output: object) -> None:
        entered.pop()

    for name, layer in network.named_modules():
        layer.register_forward_pre_hook(lambda layer, inputs, name=name: entered.append(name))
        layer.register_forward_hook(leave)


def _slope_of_sum(network: nn.Module, x: Tensor) -> None:
    network.train()(x).sum().backward()


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}
