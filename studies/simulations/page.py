"""What the simulations found, as tables, a page of Markdown and a figure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from dynops.ablation.reporting.drawing import COLOURS, LINES, MARKERS, panels
from dynops.ablation.reporting.tables import Table
from dynops.ablation.verdicts import POWER
from studies.simulations.errors import EDGES, PILOT
from studies.simulations.planted import DRAWS, INTERVALS, LEVEL, SEEDS
from studies.simulations.regimes import REGIMES, SPREADS

Saved = Mapping[str, Any]

BAND = (0.93, 0.97)
"""What a 95 % interval may cover."""
CONTRASTS = [f"{method}, {kind}" for method in ("t", "bootstrap") for kind in INTERVALS]
COVERAGE = {"contrasts": CONTRASTS, "scales": ["slope", "sign change"]}
POOLED = ("t over regimes", "mixed", "mixed, normal quantile")
ERRORS = {
    "differs": [f"differs, {key}" for key in ("none", "one")],
    "equivalent": [f"{key}, margin {edge:g}" for edge in EDGES[1:] for key in ("p equivalent", "equivalent")],
    "hypotheses": [f"{key}, effect {edge:g}" for edge in EDGES for key in ("supported", "refuted")],
}
TITLES = {
    "normal": "normal noise",
    "seed x factor": "effects vary over seeds, normal",
    "exponential": "effects vary over seeds, exponential",
}
DRAWN = {
    **dict(zip([f"t, {kind}" for kind in INTERVALS], COLOURS, strict=False)),
    **dict(zip([f"bootstrap, {kind}" for kind in INTERVALS], COLOURS, strict=False)),
    "slope": COLOURS[4],
    "sign change": COLOURS[5],
}
"""The colour of each interval in the figure."""


def tables(saved: Saved) -> tuple[Table, ...]:
    """Return all tables."""
    return coverage_table(saved), pooled_table(saved), error_table(saved), power_table(saved), loss_table(saved)


def coverage_table(saved: Saved) -> Table:
    """List how often each interval holds the truth, by noise and number of seeds."""
    made = []
    for noise in DRAWS:
        for group, names in COVERAGE.items():
            for name in names:
                found = [value(saved, f"{group}, {noise}, n={seeds}", name) for seeds in SEEDS]
                made.append((noise, name, *(_percent(each) for each in found)))
    return Table(
        title="How often 95 % intervals hold the truth",
        columns=("noise", "interval", *(f"n={seeds}" for seeds in SEEDS)),
        sides="ll" + "r" * len(SEEDS),
        rows=tuple(made),
        note=f"In %, of {saved['settings']['simulations']:,} simulations: error {_error(saved):.2f} points. Outside "
        f"{100 * BAND[0]:g} to {100 * BAND[1]:g} %: {_missing(saved)}. `seed x factor`: each "
        "factor's effect varies over seeds as much as a run does; `exponential`: that, all of it skewed.",
    )


def pooled_table(saved: Saved) -> Table:
    """List how often each interval of an effect pooled over regimes holds it."""
    made = []
    for noise in ("normal", "exponential"):
        for spread in SPREADS:
            for name in POOLED:
                found = [value(saved, f"regimes, {noise}, spread={spread:g}, r={number}", name) for number in REGIMES]
                made.append((noise, f"{spread:g}", name, *(_percent(each) for each in found)))
    return Table(
        title="How often 95 % intervals over regimes hold the effect",
        columns=("noise", "spread", "interval", *(f"{number} regimes" for number in REGIMES)),
        sides="lll" + "r" * len(REGIMES),
        rows=tuple(made),
        note="In %, with five seeds in each regime; spread: deviation between regimes over that between seeds. `mixed` "
        "has the t quantile of regimes - 1 degrees of freedom, as in dynops; the normal one is that of statsmodels.",
    )


def error_table(saved: Saved) -> Table:
    """List how often any verdict of a family is wrong, where either answer is."""
    made = []
    for noise in DRAWS:
        for group, names in ERRORS.items():
            for name in names:
                found = [value(saved, f"{group}, {noise}, n={seeds}", name) for seeds in SEEDS]
                made.append((noise, name, *(_percent(each) for each in found)))
    return Table(
        title="How often any verdict is wrong",
        columns=("noise", "verdict", *(f"n={seeds}" for seeds in SEEDS)),
        sides="ll" + "r" * len(SEEDS),
        rows=tuple(made),
        note=f"In %, at a level of {100 * LEVEL:g} %, with an error of {_error(saved):.2f} points at the level. Nine "
        "effects of a 2x2x3 factorial, or four hypotheses; margins and effects in deviations of a run. `differs`: any "
        "of the effects that are 0, where all are (none) or one is not (one). `equivalent`: all effects exactly at the "
        "margin; `p equivalent` is its test without the rule that an effect that differs is not called equivalent. "
        "`supported` and `refuted`: all hypotheses exactly on their edge, so that both are wrong.",
    )


def power_table(saved: Saved) -> Table:
    """List how often planned seeds show what they were planned for."""
    made: list[tuple[str, ...]] = []
    for name, found in saved["points"].items():
        group, _, what = name.partition(", ")
        made += POWERS[group](what, found) if group in POWERS else []
    return Table(
        title="How often planned seeds show what they were planned for",
        columns=("plan", "seeds", "power", "predicted", "interval holds"),
        sides="lrrrr",
        rows=tuple(made),
        note="In %, where 80 % are planned, for normal noise; effects in deviations of the contrast. In the family the "
        "level is shared out over nine effects, and Holm decides.",
    )


def loss_table(saved: Saved) -> Table:
    """List why a share of variance has no interval, and how often a sign change is found once and enclosed."""
    made = []
    for noise in DRAWS:
        for group, name, title in (
            ("shares", "share, bias", "share of variance: bias, points"),
            ("shares", "share, error", "share of variance: root mean square error, points"),
            ("shares", "share, percentile", "share of variance: percentile bootstrap holds it"),
            ("scales", "sign change, single", "sign change: found exactly once"),
            ("scales", "sign change, closed", "sign change: interval closed on both sides"),
        ):
            found = [value(saved, f"{group}, {noise}, n={seeds}", name) for seeds in SEEDS]
            made.append((noise, title, *(_percent(each) for each in found)))
    return Table(
        title="What does not hold, or not always",
        columns=("noise", "what", *(f"n={seeds}" for seeds in SEEDS)),
        sides="ll" + "r" * len(SEEDS),
        rows=tuple(made),
        note="In %. A share of variance is given without an interval for the coverage above.",
    )


def markdown(saved: Saved) -> str:
    """Write all tables as a page."""
    named = ", ".join(f"{name} {saved['versions'][name]}" for name in ("numpy", "scipy", "statsmodels"))
    head = (
        f"{saved['device']}; commit {saved['commit'] or '-'}; {named}; "
        f"{saved['settings']['simulations']:,} simulations of each point."
    )
    body = "\n\n".join(f"## {each.title}\n\n{each.to_markdown()}" for each in tables(saved))
    return f"# Do the statistics hold?\n\n{head}\n\n![coverage](coverage.png)\n\n{body}\n"


def figure(saved: Saved) -> Figure:
    """Draw coverage against seeds for each noise, and against regimes; the band is what is meant."""
    made, axes = panels(len(DRAWS) + 1, width=17.0, height=5.2)
    for each, noise in zip(axes, DRAWS, strict=False):
        for names, group in _named():
            for name in names:
                found = [value(saved, f"{group}, {noise}, n={seeds}", name) for seeds in SEEDS]
                _line(each, SEEDS, found, name, COLOURS.index(DRAWN[name]), 1 if name.startswith("bootstrap") else 0)
        each.set_xscale("log")
        each.set_xticks(SEEDS)
        each.xaxis.set_major_formatter(ScalarFormatter())
        each.minorticks_off()
        each.set_ylim(89, 100)
        each.set_xlabel("seeds")
        each.set_title(TITLES[noise])
    for place, name in enumerate(POOLED):
        for number, spread in enumerate(SPREADS):
            found = [value(saved, f"regimes, normal, spread={spread:g}, r={each}", name) for each in REGIMES]
            _line(axes[-1], REGIMES, found, f"{name}, spread {spread:g}", place, number)
    axes[-1].set_xlabel("regimes, five seeds in each")
    axes[-1].set_title("pooled over regimes, normal noise")
    axes[-1].set_xticks(REGIMES)
    axes[-1].legend(fontsize=7, frameon=False)
    for each in axes:
        each.axhspan(100 * BAND[0], 100 * BAND[1], color="0.92", zorder=0)
        each.axhline(100 * (1 - LEVEL), color="0.3", linewidth=1)
    axes[0].set_ylabel("intervals that hold the truth, %")
    handles, labels = axes[0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    made.suptitle(f"Coverage of 95 % intervals, {saved['settings']['simulations']:,} simulations a point")
    return made


def _planned_rows(what: str, found: Mapping[str, float]) -> list[tuple[str, ...]]:
    return [
        (
            f"planned{rule}, {what}",
            f"{found[f'seeds{rule}']:g}",
            _percent(found[f"power{rule}"]),
            _percent(found[f"predicted{rule}"]),
            "",
        )
        for rule in ("", " in the family")
    ]


def _two_stage_rows(what: str, found: Mapping[str, float]) -> list[tuple[str, ...]]:
    return [
        (
            f"pilot of {PILOT}, {rule}, {what}",
            f"{found[f'{rule}, median seeds']:g} (median)",
            _percent(found[f"{rule}, power"]),
            f">= {_percent(POWER)}" if rule == "Stein" else "",
            _percent(found[f"{rule}, coverage"]),
        )
        for rule in ("Stein", "pilot taken as known")
    ]


def _reach_rows(what: str, found: Mapping[str, float]) -> list[tuple[str, ...]]:
    seeds = what.removeprefix("n=")
    return [
        ("detectable effect", seeds, _percent(found["detectable"]), _percent(POWER), ""),
        ("margin of equivalence", seeds, _percent(found["margin"]), _percent(POWER), ""),
    ]


POWERS: Mapping[str, Callable[[str, Mapping[str, float]], list[tuple[str, ...]]]] = {
    "planned": _planned_rows,
    "two stages": _two_stage_rows,
    "reach": _reach_rows,
}
"""The rows of each group of points in the table of power."""


def value(saved: Saved, point: str, name: str) -> float | None:
    """Return a result; None where there is none of that name."""
    found = saved["points"].get(point, {}).get(name)
    return None if found is None else float(found)


def _named() -> Iterator[tuple[Sequence[str], str]]:
    for group, names in COVERAGE.items():
        yield names, group


def _line(axes: Axes, places: Sequence[int], found: Sequence[float | None], name: str, colour: int, line: int) -> None:
    known = [(place, 100 * each) for place, each in zip(places, found, strict=True) if each is not None]
    axes.plot(
        [place for place, _ in known],
        [each for _, each in known],
        color=COLOURS[colour],
        linestyle=LINES[line],
        marker=MARKERS[colour],
        markersize=4,
        label=name,
    )


def _missing(saved: Saved) -> str:
    outside = [
        f"{noise}, {name}, n={seeds} ({_percent(found)})"
        for noise in DRAWS
        for group, names in COVERAGE.items()
        for name in names
        for seeds in SEEDS
        if (found := value(saved, f"{group}, {noise}, n={seeds}", name)) is not None
        if not BAND[0] <= found <= BAND[1]
    ]
    return "; ".join(outside) or "none"


def _error(saved: Saved) -> float:
    return 100 * (LEVEL * (1 - LEVEL) / saved["settings"]["simulations"]) ** 0.5


def _percent(found: float | None) -> str:
    return "-" if found is None else f"{100 * found:.1f}"
