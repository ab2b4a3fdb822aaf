"""An effect pooled over regimes: data sets, shares of the data, widths."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM

from dynops.ablation.contrasts import ROUNDING
from dynops.ablation.statistics.arrays import check_level, finite
from dynops.ablation.verdicts import Interval, mean_interval
from dynops.errors import SpecError


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """An effect over regimes, by a mixed model and by the means of the regimes."""

    regimes: int
    """Number of regimes."""
    means: Mapping[str, float]
    """Mean over seeds in each regime, in units of the outcome."""
    mean: float
    """Mean of the regimes' means."""
    interval: Interval | None
    """t interval over the regimes' means at 1 - level, exact for normal ones; None below three regimes."""
    mixed_mean: float | None
    """The mixed model's mean over regimes, in which one with more seeds weighs more; None where it has no fit."""
    mixed_interval: Interval | None
    """Its interval, with the t quantile of regimes - 1 degrees of freedom; None where it has no fit."""
    approximate: bool
    """True: a mixed model's interval is never exact with few regimes."""
    between: float | None
    """Heterogeneity: standard deviation of the effect between regimes; None where the model has no fit."""
    within: float | None
    """Standard deviation of the effect over seeds in a regime; None where the model has no fit."""
    notes: tuple[str, ...]
    """What the fit has to say for itself, in words; empty where all went well."""


def pool(values: Mapping[str, ArrayLike], level: float = 0.05) -> Pooled:
    """Return an effect over regimes, as if they were drawn from the regimes of which one speaks.

    value[r, s] = mean + regime[r] + noise[r, s], fitted by REML. The quantile of the mixed interval is that of t with
    regimes - 1 degrees of freedom, not statsmodels' normal one, whose 95 % intervals cover 73 to 88 % with two to six
    regimes that differ. In a balanced table the mixed interval then is that over the regimes' means, or wider where the
    regimes hardly differ: it covers 95 to 100 %, and the t interval 95 %. Quote that one, and the mixed one where
    regimes have unequal numbers of seeds. Both miss in 10 % where regimes are as skewed as an exponential.

    Seeds count as independent between regimes: one that shifts the effect in all of them alike is not seen.

    Args:
        values: for each regime, the contrast's value in each of its seeds, `n`, in units of the outcome.
        level: chance that an interval misses the mean.
    Raises:
        SpecError: there are fewer than two regimes, or values are not finite.
        ShapeError: the values of a regime have other axes.
    Source: Laird and Ware, Random-effects models for longitudinal data, Biometrics 38, 1982.
    """
    check_level(level)
    if len(values) < 2:
        raise SpecError(f"values has {len(values)} regimes: must have two or more.")
    tables = {name: finite(f"regime {name}", each, "n") for name, each in values.items()}
    means = {name: float(each.mean()) for name, each in tables.items()}
    mean, interval = mean_interval(list(means.values()), level)
    fit = _fit(list(tables.values()))
    half = fit.error * float(stats.t.ppf(1 - level / 2, len(tables) - 1)) if fit.error is not None else None
    return Pooled(
        regimes=len(tables),
        means=means,
        mean=mean,
        interval=interval,
        mixed_mean=fit.mean,
        mixed_interval=None if fit.mean is None or half is None else (fit.mean - half, fit.mean + half),
        approximate=True,
        between=fit.between,
        within=fit.within,
        notes=fit.notes,
    )


@dataclass(frozen=True, kw_only=True)
class _Fit:
    mean: float | None = None
    error: float | None = None
    between: float | None = None
    within: float | None = None
    notes: tuple[str, ...] = ()


def _fit(tables: list[np.ndarray]) -> _Fit:
    """Fit the mixed model to values in units of their own spread, which its optimiser needs."""
    each, regime = np.concatenate(tables), np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    if max(map(len, tables)) < 2:
        return _Fit(notes=("no mixed model: no regime has two seeds",))
    if max(float(np.ptp(table)) for table in tables) <= ROUNDING * float(np.abs(each).max()):
        return _Fit(notes=("no mixed model: no regime has a spread over its seeds",))
    centre, unit = float(each.mean()), float(each.std())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:  # statsmodels' own choice of optimisers misses the optimum in a third of tables of this size
            found = MixedLM((each - centre) / unit, np.ones(len(each)), regime).fit(reml=True, method=["nm"])
        except np.linalg.LinAlgError as error:
            return _Fit(notes=(f"no mixed model: {error}",))
    notes = dict.fromkeys(_in_words(str(warning.message)) for warning in caught)
    between, within = max(float(np.asarray(found.cov_re)[0, 0]), 0.0), float(found.scale)
    sizes = np.array([len(table) for table in tables])
    # generalised least squares; the fit's own standard error comes from a Hessian that fails at the bound
    weights = sizes / (within + sizes * between)
    return _Fit(
        mean=float(weights @ [table.mean() for table in tables] / weights.sum()),
        error=unit * float(weights.sum()) ** -0.5,
        between=unit * between**0.5,
        within=unit * within**0.5,
        notes=tuple(notes),
    )


def _in_words(message: str) -> str:
    if any(word in message for word in ("boundary", "singular", "Hessian")):
        return "no more spread between regimes than seeds explain: their deviation is at its bound 0"
    return f"statsmodels: {' '.join(message.split())}"
