"""An experiment: a network, a data set and a recipe as one value, so that a study can vary any of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dynops.data import Data
from dynops.nets import Network, Timing, matched
from dynops.records import RunRecord
from dynops.specs import Spec, spec
from dynops.training.environment import choose_accelerator
from dynops.training.mixing import check_mixing
from dynops.training.program import load
from dynops.training.recipe import Recipe
from dynops.training.train import train, train_together


@spec
class Experiment(Spec):
    """What one cell of a study trains."""

    network: Network
    """What is trained."""
    data: Data
    """What it learns and is evaluated on."""
    recipe: Recipe
    """How."""

    def check(self, seed: int, *, root: Path | None = None, accelerator: str = "auto") -> None:
        """Load the data and build the network without weights, so that what is wrong shows before the first run.

        Raises:
            DynopsError: whatever `run` would raise for these reasons.
        """
        choose_accelerator(accelerator)
        (dataset,) = load(self.data, (seed,), root)
        check_mixing(self.recipe, dataset.task)
        with torch.device("meta"):
            self.network.build(dataset.input_shape, dataset.outputs)

    def matched(
        self,
        to: "Experiment",
        budget: str,
        *,
        root: Path | None = None,
        accelerator: str = "auto",
        tolerance: float = 0.01,
    ) -> "Experiment":
        """Return the experiment with its network at the width at which it costs what another's does.

        Costs are those on this experiment's data; a step has its recipe's batch size. A latency is measured, and may
        lead to another network each time: keep the experiment that comes back.

        Args:
            to: its network is what the cost is compared with.
            budget: `parameters`, `macs`, `latency` or `as_is`, as in `dynops.nets.matched`.
            root: folder of the data sets.
            accelerator: where steps are timed, as in `train`.
            tolerance: largest share by which the costs may differ.
        Raises:
            SpecError: no width is near enough.
            DynopsError: whatever `check` would raise.
        """
        (dataset,) = load(self.data, (0,), root)
        found = matched(
            self.network,
            to=to.network,
            budget=budget,
            shape=dataset.input_shape,
            outputs=dataset.outputs,
            tolerance=tolerance,
            timing=Timing(batch_size=self.recipe.batch_size, device=choose_accelerator(accelerator)),
        )
        return replace(self, network=found.network)

    def run(self, seed: int, **options: Any) -> RunRecord:
        """Train; options, result and errors are those of `train`."""
        return train(self.network, self.data, self.recipe, seed, **options)

    def run_together(self, seeds: Sequence[int], **options: Any) -> list[RunRecord]:
        """Train with several seeds as one program; options, results and errors are those of `train_together`."""
        return train_together(self.network, self.data, self.recipe, seeds, **options)
