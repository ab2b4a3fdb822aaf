"""Do the statistics hold? Planted effects in a 2x2x3 factorial with seeds as blocks, drawn thousands of times.

How often do 95 % intervals hold the truth, how often is each verdict wrong where either answer is, and how often do
planned seeds show what they were planned for: for normal noise, for effects that vary from seed to seed, and for
skewed ones, with 3 to 20 seeds. What misses its claim stands in the table beside what holds it.

    python -m studies.simulations
    python -m studies.simulations --simulations 400 --folder runs/quick
"""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from dynops.records import write_atomically
from dynops.specs import at_least
from studies.measured import identity, open_measured
from studies.simulations import coverage, errors, page, regimes
from studies.simulations.planted import DRAWS, LEVEL, SEEDS, generator_of

EFFECTS = (0.7, 1.0, 1.5)
"""Effects that are planned for, in deviations."""
REGIME_SEEDS = 5
BY_NOISE: Mapping[str, Callable[..., dict[str, float]]] = {
    "contrasts": coverage.contrasts,
    "scales": coverage.scales,
    "shares": coverage.shares,
    "differs": errors.differs,
    "equivalent": errors.equivalent,
    "hypotheses": errors.hypotheses,
}
"""What is measured with each noise and each number of seeds."""


def main(simulations: int = 4000, folder: Path = Path("runs/simulations")) -> None:
    """Draw and judge, and keep the tables and the figure; started again, it goes on where it was.

    Args:
        simulations: draws of each point; a share of 95 % then has an error of 0.34 points.
        folder: where `simulations.json`, `simulations.md` and `coverage.png` go.
    """
    at_least("simulations", simulations, 2)
    # a file or a pipe has no width that a line could be too long for
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    measured = open_measured(folder / "simulations.json", settings(simulations))
    if measured.message:
        console.print(measured.message, soft_wrap=True)
    for name, measure in track(points(simulations).items(), "Simulations", console=console, transient=True):
        measured.get(name, partial(measure, generator_of(name)))
    saved = measured.plain()
    write_atomically(folder / "simulations.md", page.markdown(saved))
    page.figure(saved).savefig(folder / "coverage.png")
    for each in page.tables(saved):
        console.print(each.to_terminal(*each.columns))
        console.print(each.note, soft_wrap=True)
    console.print(f"Kept in {folder}: simulations.json, simulations.md, coverage.png.", soft_wrap=True)


def settings(simulations: int) -> dict[str, Any]:
    """Return what the results depend on, as plain data."""
    found = identity(torch.device("cpu"), {"simulations": simulations, "level": LEVEL})
    return {**found, "versions": {**found["versions"], **{name: version(name) for name in ("scipy", "statsmodels")}}}


def points(simulations: int) -> dict[str, Callable[..., dict[str, float]]]:
    """Return what is measured, by name: each from a generator of its own."""
    found: dict[str, Callable[..., dict[str, float]]] = {
        f"{what}, {noise}, n={seeds}": partial(measure, noise, seeds, simulations)
        for what, measure in BY_NOISE.items()
        for noise in DRAWS
        for seeds in SEEDS
    }
    for noise in ("normal", "exponential"):
        for spread in regimes.SPREADS:
            for number in regimes.REGIMES:
                name = f"regimes, {noise}, spread={spread:g}, r={number}"
                found[name] = partial(regimes.pooled, noise, number, spread, REGIME_SEEDS, simulations)
    for effect in EFFECTS:
        found[f"planned, effect={effect:g}"] = partial(errors.planned, effect, simulations)
        found[f"two stages, effect={effect:g}"] = partial(errors.two_stage, effect, simulations)
    for seeds in SEEDS:
        found[f"reach, n={seeds}"] = partial(errors.within_reach, seeds, simulations)
    return found
