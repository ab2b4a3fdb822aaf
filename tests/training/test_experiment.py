"""An experiment at another's cost."""

from dataclasses import replace

import pytest

from dynops import zoo
from dynops.data import Digits, SelectorShift
from dynops.errors import SpecError
from dynops.nets import Bare, KerasCNN, ResidualNetwork, matched
from dynops.training import Experiment, Recipe

REFERENCE = Experiment(
    network=ResidualNetwork(operators=(zoo.depthwise(3),), depths=(3,), width=32), data=Digits(), recipe=Recipe()
)
INVOLUTION = replace(REFERENCE, network=replace(REFERENCE.network, operators=(zoo.involution(7),)))


@pytest.mark.parametrize("budget", ["parameters", "macs"])
def test_network_is_matched_on_the_experiments_data_and_nothing_else_changes(budget: str) -> None:
    found = INVOLUTION.matched(REFERENCE, budget)
    expected = matched(INVOLUTION.network, to=REFERENCE.network, budget=budget, shape=(1, 8, 8), outputs=10)
    assert found == replace(INVOLUTION, network=expected.network)
    assert found != INVOLUTION
    assert Experiment.from_json(found.to_json()) == found
    found.check(0)


def test_experiment_as_it_is_and_one_that_fits_are_left() -> None:
    assert INVOLUTION.matched(REFERENCE, "as_is") == INVOLUTION
    assert REFERENCE.matched(REFERENCE, "macs") == REFERENCE


def test_latency_is_that_of_the_recipes_batch() -> None:
    few = replace(REFERENCE, recipe=Recipe(batch_size=2))
    assert few.matched(few, "latency", accelerator="cpu") == few
    with pytest.raises(SpecError, match=r"^accelerator has 'tpu': must be one of 'auto', "):
        few.matched(few, "latency", accelerator="tpu")


def test_network_of_a_fixed_width_is_refused() -> None:
    message = r"^network has .*: its width is fixed\. Use a ResidualNetwork, or budget='as_is'\.$"
    bare = Experiment(
        network=Bare(operator=zoo.depthwise(3)), data=SelectorShift(task="pixel", train=8, test=8), recipe=Recipe()
    )
    for experiment in (bare, replace(REFERENCE, network=KerasCNN())):
        with pytest.raises(SpecError, match=message):
            experiment.matched(replace(experiment, network=REFERENCE.network), "parameters")
