"""Bootstrap over seeds: the check on t intervals, which lean on normal contrasts.

Only the studentised interval is here. Percentile and BCa intervals cover 75 and 69 % at three seeds and 89 % at ten,
where 95 % are meant.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from dynops.ablation.contrasts import ROUNDING
from dynops.ablation.statistics.arrays import check_level, finite
from dynops.ablation.verdicts import Interval, mean_and_error
from dynops.specs import at_least

FEWEST = 5
"""Seeds below which no interval is given: at three it covers 82 % where 95 % are meant."""
RESAMPLES = 1999
"""Resamples, so that each 2.5 % tail holds 50 of 2000 parts exactly."""


def studentised_interval(values: ArrayLike, level: float, *, seed: int, resamples: int = RESAMPLES) -> Interval | None:
    """Return the bootstrap-t interval of a mean over seeds.

    Args:
        values: one value a seed, `n`.
        level: chance to miss the mean.
        seed: of the resampling; the same seed gives the same interval.
        resamples: how often the seeds are drawn anew.
    Returns:
        Both ends; None below five seeds, and where too many resamples have no spread to give finite ends.
    Raises:
        ShapeError: values has other axes.
        SpecError: values are not finite, or a number is out of its range.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 12.5.
    """
    each = finite("values", values, "n")
    check_level(level)
    at_least("resamples", resamples, 1)
    if len(each) < FEWEST:
        return None
    low, high = studentised_ends(each, level, draw_seeds(len(each), resamples, seed))
    return (float(low), float(high)) if np.isfinite(low) and np.isfinite(high) else None


def studentised_ends(values: np.ndarray, level: float, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends of the bootstrap-t interval of the mean, for many samples at once.

    With t = (mean of a resample - mean) / error of the resample the ends are mean - error * quantiles of t. A resample
    without spread has t at an infinity, on the side of its mean: that can widen an interval, and never shortens it.

    Args:
        values: one value a seed, `... n`.
        level: chance to miss the mean.
        draws: how often each seed is in each resample, `r n`, as from `draw_seeds`.
    """
    mean, error = mean_and_error(values)
    seeds, resamples = values.shape[-1], len(draws)
    away = values - mean[..., None]
    means, squares = away @ draws.T / seeds, away**2 @ draws.T / seeds  # ... r
    spread = np.maximum(squares - means**2, 0.0)
    spread[spread <= ROUNDING * squares] = 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        t = means / np.sqrt(spread / (seeds - 1))
    t = np.nan_to_num(t, nan=0.0, posinf=np.inf, neginf=-np.inf)
    last = min(resamples - 1, round((resamples + 1) * (1 - level / 2)) - 1)
    first = resamples - 1 - last
    t.partition((first, last), axis=-1)
    low, high = t[..., last], t[..., first]
    sure = error == 0
    return (
        np.where(sure, mean, mean - np.where(sure, 0.0, low) * error),
        np.where(sure, mean, mean - np.where(sure, 0.0, high) * error),
    )


@lru_cache(maxsize=4)  # all effects of a study share their draws, which take longer than what is made of them
def draw_seeds(seeds: int, resamples: int, seed: int) -> np.ndarray:
    """Draw how often each seed is in each resample of as many, `r n`; the array can't be written to."""
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples).astype(float)
    draws.flags.writeable = False
    return draws
