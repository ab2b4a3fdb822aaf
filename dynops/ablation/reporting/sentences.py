"""What a report says in sentences beside its tables: of intervals, aliases, regimes and what was registered."""

from collections.abc import Sequence

from dynops.ablation.effects import Effect, Effects
from dynops.ablation.overview import Profile
from dynops.ablation.plan import Plan
from dynops.ablation.reporting.results import show, show_interval
from dynops.ablation.reporting.tables import changed_hypotheses, interval_name, show_p
from dynops.ablation.statistics.bootstrap import FEWEST
from dynops.ablation.statistics.scale import SignChange

MOST_NAMED = 50
"""Effects that a sentence names; the tables have all of them."""


def disagreement(shown: Sequence[Effect]) -> str:
    """Say of which effects the t interval and the bootstrap interval do not agree whether 0 lies in them."""
    both = [effect for effect in shown if effect.interval is not None and effect.robust is not None]
    if not both:
        return f"Bootstrap intervals are given from {FEWEST} seeds on."
    apart = [effect for effect in both if _holds_zero(effect.interval) != _holds_zero(effect.robust)]
    agree = "The t interval and the bootstrap interval agree about 0 for"
    if not apart:
        return f"{agree} {'every effect' if len(both) > 1 else 'the effect'} here: 0 lies in both or in neither."
    named = "; ".join(
        f"{effect.name} (0 lies in the {'t' if _holds_zero(effect.interval) else 'bootstrap'} interval only)"
        for effect in apart[:MOST_NAMED]
    )
    named += f"; and {len(apart) - MOST_NAMED:,} more" if len(apart) > MOST_NAMED else ""
    return f"**The t interval and the bootstrap interval disagree about 0** for {named}. {_rest(len(both), len(apart))}"


def aliases(shown: Sequence[Effect]) -> tuple[str, ...]:
    """Name, for each effect that the design cannot tell from others, what its estimate is the sum of."""
    return tuple(
        f"{effect.name} cannot be told from {' and from '.join(effect.aliases)}: the estimate is that of their sum."
        for effect in shown
        if effect.aliases
    )


def profile_sentences(profile: Profile, effects: Effects, plan: Plan) -> tuple[str, ...]:
    """Say how an effect over a regime is pooled, how far it differs, how it grows and where it changes its sign."""
    scale = plan.factor(profile.regime).scale
    said = [*_pooled(profile, effects)]
    if profile.slope is not None:
        slope = profile.slope
        interval = f"{interval_name(effects)} {show_interval(slope.interval, effects.unit, signed=True)}"
        said.append(
            f"Slope: {show(slope.estimate, effects.unit, signed=True)} with each doubling of {profile.regime} "
            f"({interval}, p {show_p(slope.p)}, n = {len(slope.by_seed)}): {slope.verdict}."
        )
    if profile.sign_change is not None:
        said.append(f"Sign change: {sign_change_words(profile.sign_change, min(scale), max(scale), effects)}")
    return tuple(said)


def sign_change_words(change: SignChange, smallest: float, largest: float, effects: Effects) -> str:
    """Say where an effect changes its sign, and how surely."""
    scales = f"from {smallest:g} to {largest:g}"
    if change.crossings == 0:
        head = f"none of the mean effect {scales}"
    elif change.estimate is not None:
        head = f"once, at about {change.estimate:.3g}"
    else:
        head = f"{change.crossings} times {scales}, so that there is no single one"
    low, high = (f"{end:.3g}" if end is not None else "" for end in (change.low, change.high))
    tail = {
        "closed": f"from {low} to {high}, closed on both sides",
        "open below": f"up to {high}, open below: it may lie below the smallest scale, {smallest:g}",
        "open above": f"from {low} on, open above: it may lie above the largest scale, {largest:g}",
        "open": f"open on both sides: it may lie anywhere {scales}, or beyond",
        "empty": f"empty: no scale {scales} may be one",
        "unknown": "not known below three seeds",
    }[change.reach]
    return f"{head}; {interval_name(effects)} {tail}."


def changed_family(plan: Plan, shown: Sequence[Effect]) -> str:
    """Name the effects that came into the family after the study was registered; empty where there are none."""
    if plan.registration is None:
        return ""
    late = [effect.name for effect in shown if effect.contrast not in plan.registration.statement.family]
    return f"**Exploratory**, since they joined the family after it was registered: {'; '.join(late)}." if late else ""


def registered(plan: Plan) -> str:
    """Say whether the hypotheses were registered, and what was changed since."""
    if plan.registration is None:
        return "Hypotheses: not registered before the first run"
    said = f"registered {plan.registration.time} before the first run, hash {plan.registration.hash}"
    changes = plan.changes()
    if not changes:
        return f"Hypotheses: {said}, unchanged since"
    late = sorted(changed_hypotheses(plan))
    marked = f": {', '.join(late)}" if late else ", which holds for no verdict"
    return (
        f"Hypotheses: {said}; **changed after that**: {'; '.join(changes)}. Verdicts are exploratory where they rest "
        f"on what was changed{marked}"
    )


def _pooled(profile: Profile, effects: Effects) -> list[str]:
    pooled, unit = profile.pooled, effects.unit
    if pooled is None:
        return ["Pooled: not without results in two levels."]
    mean = show(pooled.mean, unit, signed=True)
    interval = show_interval(pooled.interval, unit, signed=True) if pooled.interval else "none below three levels"
    said = f"Pooled over {pooled.regimes} levels, as if drawn from many: {mean} ({interval_name(effects)} {interval}"
    if pooled.mixed_mean is not None:
        mixed = show_interval(pooled.mixed_interval, unit, signed=True)
        about = ", approximate" if pooled.approximate else ""
        said += f"; by a mixed model {show(pooled.mixed_mean, unit, signed=True)}, {mixed}{about}"
    lines = [f"{said})."]
    if pooled.between is not None:
        lines.append(
            f"Heterogeneity: a standard deviation of {show(pooled.between, unit)} between levels, of "
            f"{show(pooled.within, unit)} over seeds within one."
        )
    return [*lines, *(f"The fit says: {note}." for note in pooled.notes)]


def _holds_zero(interval: tuple[float, float] | None) -> bool:
    assert interval is not None, "intervals are there"
    return interval[0] <= 0 <= interval[1]


def _rest(both: int, apart: int) -> str:
    rest = both - apart
    return f"They agree for the other {rest}." if rest else ""
