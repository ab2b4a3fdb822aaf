"""Data sets as a regime: an effect in each, and over both."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from dynops import Channels, zoo
from dynops.ablation import Difference, Factor, Study, effects, read_study, report
from dynops.data import Data, Digits, ImageFolder
from dynops.nets import ResidualNetwork
from dynops.training import Experiment, Recipe
from studies.setting import operators


def write_tints(root: Path) -> None:
    """Write images of two tints, 12 to train and 6 to test."""
    random = np.random.default_rng(0)
    for part, number in (("train", 6), ("val", 3)):
        for tint in range(2):
            folder = root / "tints" / part / f"tint{tint}"
            folder.mkdir(parents=True)
            for each in range(number):
                pixels = random.integers(0, 60, (12, 12, 3), dtype=np.uint8)
                pixels[..., tint] += 150
                Image.fromarray(pixels).save(folder / f"{each}.png")


def learning(data: Data) -> Callable[[Experiment], Experiment]:
    return lambda experiment: replace(experiment, data=data)


def test_data_sets_of_other_sizes_and_classes_are_a_regime(tmp_path: Path) -> None:
    write_tints(tmp_path)
    sharing = Difference("channels", "grouped", "per_channel")
    network = ResidualNetwork(operators=(zoo.depthwise(),), depths=(1,), width=8)
    study = Study(
        name="sharing_over_data_sets",
        question="Does sharing cost the same on both data sets?",
        base=Experiment(network=network, data=Digits(), recipe=Recipe(epochs=1, batch_size=8)),
        factors=(
            Factor(
                "data_set",
                {
                    "digits": learning(Digits(fraction=0.02)),
                    "tints": learning(ImageFolder(folder="tints", size=8)),
                },
            ),
            operators(
                "channels",
                {
                    "per_channel": lambda operator: operator,
                    "grouped": lambda operator: replace(operator, channels=Channels("(g s)", s=4)),
                },
            ),
        ),
        regimes=("data_set",),
        family=(sharing,),
        seeds=(0, 1, 2),
        run=lambda job: job.spec.run(job.seed, folder=job.folder, root=tmp_path, accelerator="cpu"),  # type: ignore[attr-defined]
    )
    study.execute(tmp_path / "study")
    plan, records = read_study(tmp_path / "study")
    assert all(record.accepted for record in records)
    assert {record.spec["data"]["type"] for record in records} == {"Digits", "ImageFolder"}
    (profile,) = effects(records, plan).profiles
    assert profile.regime == "data_set"
    assert profile.levels == ("digits", "tints")
    over_both = next(effect for effect in effects(records, plan).effects if effect.in_family)
    assert over_both.estimate is not None
    assert "## Over data_set" in report(tmp_path / "study").text
