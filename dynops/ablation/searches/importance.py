"""How much of the spread among a search's trials each factor explains, by a random forest."""

from collections.abc import Sequence

import optuna
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import FrozenTrial, create_trial

from dynops.ablation.searches.plan import SearchPlan
from dynops.ablation.searches.sampling import distributions, params_of
from dynops.ablation.searches.trials import PointTrial, results

FEWEST_TRIALS = 10
"""A forest on fewer trials says nothing."""
FOREST_SEED = 0


def importance(plan: SearchPlan, trials: Sequence[PointTrial], place: int) -> dict[str, float] | None:
    """Return each factor's share of an objective's variance over the whole space, as a forest predicts it.

    Shares are of main effects; what they lack of 1 are interactions. A share depends on the levels that the plan has
    and on where the sampler looked: it is no effect, and has no interval.

    Args:
        plan: gives factors and objectives.
        trials: of the search; those without a result are left out.
        place: which objective.
    Returns:
        Shares by factor, in the order of the plan; None with fewer than ten results or if all results are equal.
    Source: Hutter et al., An efficient approach for assessing hyperparameter importance, ICML 2014.
    """
    found = results(trials)
    if len(found) < FEWEST_TRIALS or len({trial.values[place] for trial in found}) == 1:
        return None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        directions=["minimize"] * len(plan.objectives),
        sampler=optuna.samplers.RandomSampler(seed=FOREST_SEED),
        pruner=optuna.pruners.NopPruner(),
    )
    study.add_trials(_finished(plan, trial) for trial in found)

    def target(trial: FrozenTrial) -> float:
        return float(trial.values[place])

    shares = FanovaImportanceEvaluator(seed=FOREST_SEED).evaluate(study, target=target)  # as they are: not normalised
    return {factor.name: float(shares[factor.name]) for factor in plan.factors}


def _finished(plan: SearchPlan, trial: PointTrial) -> FrozenTrial:
    levels = params_of(plan, trial.levels)
    return create_trial(values=list(trial.values), params=levels, distributions=distributions(plan))
