"""The figures of the study of speed, made of what it kept."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dynops.ablation.reporting.drawing import COLOURS, LINES, MARKERS, panels
from studies.speed.peers import BASE, DIRECTIONS, OWN
from studies.speed.place import Shape
from studies.speed.roofline import Roofline
from studies.speed.sweeps import PEERS, UNITS, VALUES, growths, of_axis
from studies.speed.tables import HEADS, Saved, least_seconds, of_memory, of_shapes, ratios, work_of


def figures(saved: Saved) -> dict[str, Figure]:
    """Draw all figures that there is something for, by name."""
    made = {}
    if shapes := list(of_shapes(saved)):
        made["ratios"] = draw_ratios(shapes, saved)
        if "roofline" in saved["points"]:
            made["roofline"] = draw_roofline(shapes, saved)
    if peaks := of_memory(saved):
        made["memory"] = draw_memory(peaks, saved)
    if any(of_axis(saved, axis) for axis in VALUES):
        made["sweeps"] = draw_sweeps(saved)
    return made


def draw_ratios(shapes: Sequence[Mapping[str, Any]], saved: Saved) -> Figure:
    """Draw the ratio of each peer's time to that of depthwise convolution, with its quartiles."""
    names = list(shapes[0]["peers"])
    figure, axes = panels(len(DIRECTIONS), width=12, height=1.8 + 0.42 * len(names))
    for each, direction in zip(axes, DIRECTIONS, strict=True):
        for number, point in enumerate(shapes):
            base = point["peers"][BASE][direction]
            for row, name in enumerate(names):
                place, colour = _beside(row, number, len(shapes)), COLOURS[number]
                if isinstance(own := point["peers"][name][direction], str):
                    _reason(each, place, own, colour)
                else:
                    low, middle, high = ratios(own, base)
                    each.plot([low, high], [place, place], color=colour)
                    each.plot(middle, place, MARKERS[number], color=colour, markersize=5)
        _rows(each, names)
        each.set_xscale("log")
        each.axvline(1, color="0.3", linewidth=1)
        each.set_xlabel(f"{HEADS[direction]}: time / {BASE}, lower is better")
    axes[1].set_yticklabels([])
    _finish(figure, axes[0], [_name(point) for point in shapes], f"Time beside depthwise convolution; {_where(saved)}")
    return figure


def draw_memory(peaks: Mapping[str, Any], saved: Saved) -> Figure:
    """Draw each peer's peak memory beyond inputs and outputs, as a ratio to these."""
    names = list(next(iter(peaks.values())))
    figure, axes = panels(len(DIRECTIONS), width=12, height=1.8 + 0.42 * len(names))
    for each, direction in zip(axes, DIRECTIONS, strict=True):
        for number, peak in enumerate(peaks.values()):
            for row, name in enumerate(names):
                place, colour = _beside(row, number, len(peaks)), COLOURS[number]
                if isinstance(found := peak[name][direction], str):
                    _reason(each, place, found, colour)
                else:
                    ratio = found["extra"] / found["held"]
                    each.barh(place, ratio, height=0.8 / len(peaks), color=colour)
                    each.text(ratio, place, f" {ratio:.2f}", va="center", fontsize=7)
        _rows(each, names)
        each.set_xscale("symlog", linthresh=0.1)
        each.set_xlim(left=0)
        each.axvline(1.2, color="0.3", linewidth=1, linestyle="--")
        each.margins(x=0.1)
        each.set_xlabel(f"{HEADS[direction]}: extra / inputs and outputs, lower is better")
    axes[1].set_yticklabels([])
    title = f"Peak memory beyond inputs and outputs; dashed: the goal for {OWN}; {_where(saved)}"
    _finish(figure, axes[0], list(peaks), title)
    return figure


def draw_roofline(shapes: Sequence[Mapping[str, Any]], saved: Saved) -> Figure:
    """Draw which share of dynops' time the machine needs at least."""
    machine = Roofline(**saved["points"]["roofline"])
    figure, (axes,) = panels(1, width=8, height=1.5 + 0.5 * len(shapes))
    largest = 100.0
    for row, point in enumerate(shapes):
        for number, (direction, passes) in enumerate(work_of(point).items()):
            share = 100 * least_seconds(passes, machine) / median(point["peers"][OWN][direction])
            place = _beside(row, number, 2)
            axes.barh(place, share, height=0.35, color=COLOURS[number], label=HEADS[direction] if not row else None)
            axes.text(share, place, f" {share:.0f} %", va="center")
            largest = max(largest, share)
    _rows(axes, [_name(point) for point in shapes])
    axes.axvline(100, color="0.3", linewidth=1)
    axes.set_xlim(0, 1.1 * largest)
    axes.set_xlabel("least time on this machine / time, %, higher is better")
    bandwidth, rate = f"{machine.bandwidth / 1e9:.1f} GB/s", f"{machine.rate / 1e9:.0f} GFLOP/s"
    figure.suptitle(f"{OWN} and the roofline: {bandwidth}, {rate}\n{_where(saved)}", fontsize=11)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def draw_sweeps(saved: Saved) -> Figure:
    """Draw time along each axis, both axes logarithmic, with the slope where there is one."""
    drawn = [axis for axis in VALUES if of_axis(saved, axis)]
    figure, axes = panels(len(drawn), width=3.6 * len(drawn), height=4.6)
    fitted = growths(saved)
    for each, axis in zip(axes, drawn, strict=True):
        swept = of_axis(saved, axis)
        slopes = []
        for colour, peer in enumerate(PEERS):
            for line, direction in enumerate(DIRECTIONS):
                _line(each, swept, peer, direction, colour, line)
                if found := fitted.get(axis, {}).get(peer, {}).get(direction):
                    slopes.append(f"{peer}, {HEADS[direction]}: {found.slope:.2f}")
        each.set_xscale("log")
        each.set_yscale("log")
        each.set_xticks(list(swept), [str(value) for value in swept])
        each.minorticks_off()
        each.set_xlabel({"size": "size, pixels a side", "k": "k, taps a side"}.get(axis, axis))
        each.set_title(f"slope over {UNITS[axis]}\n" + "\n".join(slopes) if slopes else axis, fontsize=8, loc="left")
    axes[0].set_ylabel("time, ms (median, quartiles)")
    figure.suptitle(f"Time along each axis; {_where(saved)}", fontsize=11)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _line(axes: Axes, swept: Mapping[int, Any], peer: str, direction: str, colour: int, line: int) -> None:
    times = {value: point["peers"][peer][direction] for value, point in swept.items()}
    numbers = {value: each for value, each in times.items() if not isinstance(each, str)}
    quartiles = [[1e3 * each for each in ratios(own, [1.0] * len(own))] for own in numbers.values()]
    if not quartiles:
        return
    low, _, high = zip(*quartiles, strict=True)
    middles = [1e3 * median(own) for own in numbers.values()]
    (drawn,) = axes.plot(list(numbers), middles, MARKERS[colour], color=COLOURS[colour], markersize=4)
    drawn.set(linestyle=LINES[line], label=f"{peer}, {HEADS[direction]}")
    axes.fill_between(list(numbers), low, high, color=COLOURS[colour], alpha=0.15, linewidth=0)


def _beside(row: int, number: int, of: int) -> float:
    """The place of one of several marks of a row."""
    return row + 0.8 * ((number + 0.5) / of - 0.5)


def _reason(axes: Axes, place: float, reason: str, colour: str) -> None:
    """Say at the left why there is no number."""
    axes.text(0.01, place, reason, transform=axes.get_yaxis_transform(), va="center", fontsize=7, color=colour)


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def _finish(figure: Figure, axes: Axes, names: Sequence[str], title: str) -> None:
    figure.suptitle(title, fontsize=11)
    handles = [
        axes.plot([], [], MARKERS[number], color=COLOURS[number], label=each)[0] for number, each in enumerate(names)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, title="b,c,h,w,k,g")


def _name(point: Mapping[str, Any]) -> str:
    return str(Shape(*point["shape"]))


def _where(saved: Saved) -> str:
    return f"{saved['device']}, {saved['settings']['dtype']}, {saved['settings']['rounds']} rounds"
