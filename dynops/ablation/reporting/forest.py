"""The forest: every effect of a study with its interval, beside the zero line and the equivalence margin."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dynops.ablation.effects import Effect, Effects
from dynops.ablation.reporting.drawing import COLOURS, MARKERS, outcome_label, panels, seeds_shown
from dynops.ablation.reporting.results import SCALES, show, show_interval

KINDS = {"main": 0, "interaction": 1, "slope": 2, "simple": 3}
"""Kinds of effect in the order of the forest; also the place of their colour and marker."""
MOST_ROWS = 40
"""A forest with more rows than this leaves exploratory simple effects to the table, and then interactions as well."""


def forest(effects: Effects) -> Figure:
    """Draw each effect with its interval, the zero line, and the equivalence margin as a band.

    Filled markers are confirmatory, hollow ones exploratory; an effect below three seeds has no interval.
    """
    groups = _forest_groups(effects)
    rows: list[str | Effect] = []
    for heading, group in groups.items():
        rows += [heading, *group] if group else []
    shown = [row for row in rows if isinstance(row, Effect)]
    figure, axes = panels(1, width=10.0, height=1.5 + 0.3 * len(rows))
    scale = SCALES[effects.unit]
    axes[0].axvline(0, color="0.3", linewidth=1)
    if effects.margin:
        axes[0].axvspan(-effects.margin * scale, effects.margin * scale, color="0.9", zorder=0)
    for place, row in enumerate(rows):
        if isinstance(row, Effect):
            _forest_row(axes[0], place, row, scale)
    _forest_labels(axes[0], rows, effects.unit)
    axes[0].set_xlabel(f"effect on {outcome_label(effects.outcome, effects.unit)}")
    drawn = seeds_shown([len(effect.by_seed) for effect in shown], "mean over seeds", level=effects.level)
    figure.suptitle("\n".join([f"Effects: {drawn}", *_left_out(shown, effects)]))
    figure.legend(handles=_forest_legend(shown, effects), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _shown(effect: Effect) -> bool:
    return effect.estimate is not None


def _forest_groups(effects: Effects) -> dict[str, list[Effect]]:
    known = sorted((effect for effect in effects.effects if _shown(effect)), key=lambda effect: KINDS[effect.kind])
    for kind in ("simple", "interaction"):
        if len(known) > MOST_ROWS:
            known = [effect for effect in known if effect.in_family or effect.kind != kind]
    return {
        "Confirmatory (Holm-adjusted family)": [effect for effect in known if effect.in_family],
        "Exploratory (unadjusted)": [effect for effect in known if not effect.in_family],
    }


def _left_out(shown: Sequence[Effect], effects: Effects) -> list[str]:
    names = {"simple": "simple effects", "interaction": "interactions"}
    missing = [effect.kind for effect in effects.effects if _shown(effect) and effect not in shown]
    counts = [f"{missing.count(kind)} {name}" for kind, name in names.items() if kind in missing]
    return [f"{' and '.join(counts)} are in the table only"] if counts else []


def _forest_row(axes: Axes, place: int, effect: Effect, scale: float) -> None:
    assert effect.estimate is not None, "rows hold effects with an estimate"
    kind = KINDS[effect.kind]
    if effect.interval is not None:
        axes.plot([end * scale for end in effect.interval], [place, place], color=COLOURS[kind], linewidth=2)
    face = COLOURS[kind] if effect.in_family else "white"
    axes.plot(effect.estimate * scale, place, MARKERS[kind], color=COLOURS[kind], markerfacecolor=face, markersize=7)


def _forest_labels(axes: Axes, rows: Sequence[str | Effect], unit: str) -> None:
    axes.set_yticks(range(len(rows)), [row if isinstance(row, str) else row.name for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    right = axes.twinx()
    right.set_yticks(range(len(rows)), ["" if isinstance(row, str) else _forest_text(row, unit) for row in rows])
    right.set_ylim(axes.get_ylim())
    right.tick_params(axis="y", length=0)
    right.spines[["top", "right"]].set_visible(False)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if isinstance(row, str) else "normal")


def _forest_text(effect: Effect, unit: str) -> str:
    estimate = show(effect.estimate, unit, signed=True)
    if effect.interval is None:
        return f"{estimate}  no interval (n = {len(effect.by_seed)})"
    return f"{estimate} {show_interval(effect.interval, unit, signed=True)}"


def _forest_legend(shown: Sequence[Effect], effects: Effects) -> list[Line2D]:
    handles = []
    for kind in sorted({effect.kind for effect in shown}, key=KINDS.__getitem__):
        colour, marker = COLOURS[KINDS[kind]], MARKERS[KINDS[kind]]
        handles.append(
            Line2D(
                [],
                [],
                color=colour,
                marker=marker,
                markerfacecolor="white",
                label=f"{kind} effect" if kind in ("main", "simple") else kind,
            )
        )
    if effects.margin:
        margin = show(effects.margin, effects.unit)
        handles.append(Line2D([], [], color="0.85", linewidth=9, label=f"equivalence margin (± {margin})"))
    return handles
