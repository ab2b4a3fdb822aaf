"""The tables of the study of speed, made of what it kept: times, memory, roofline, sweeps, and where dynops loses."""

from collections.abc import Iterator, Mapping
from statistics import median, quantiles
from typing import Any

from dynops.ablation.reporting.tables import Table
from studies.speed.peers import BASE, COMPILED, DIRECTIONS, LAYER, OWN
from studies.speed.place import DTYPES, Place, Shape
from studies.speed.roofline import Roofline, Work, work
from studies.speed.sweeps import UNITS, growths

Saved = Mapping[str, Any]
"""What `speed.json` holds."""
HEADS = {"forward": "forward", "both": "forward + backward"}
PLAIN = "-"
MIB = 1 << 20


def markdown(saved: Saved) -> str:
    """Write all tables as a page of Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in saved["versions"].items())
    settings = ", ".join(f"{name} {value}" for name, value in saved["settings"].items())
    lines = ["# Speed of local sums", f"{saved['device']}; {settings}; commit {saved['commit'] or PLAIN}; {versions}."]
    for table in tables(saved):
        lines += [f"## {table.title}", table.to_markdown()]
    return "\n\n".join(lines) + "\n"


def tables(saved: Saved) -> list[Table]:
    """Make all tables, those without rows left out."""
    made = (times(saved), memory(saved), roofline(saved), sweeps(saved), growth(saved), losses(saved))
    return [table for table in made if table.rows]


def summary(saved: Saved) -> Table:
    """Compare the sum with its peers, one line a shape."""
    machine = Roofline(**saved["points"]["roofline"])
    rows = []
    for point in of_shapes(saved):
        peers, shape = point["peers"], str(Shape(*point["shape"]))
        cells = [timed(peers[OWN][each], peers[BASE][each])[1] for each in DIRECTIONS]
        cells += [f"{ratios(peers[COMPILED][each], peers[OWN][each])[1]:.1f}" for each in DIRECTIONS]
        cells.append(f"{ratios(peers[LAYER]['both'], peers[BASE]['both'])[1]:.2f}")
        shares = [least_seconds(work_of(point)[each], machine) / median(peers[OWN][each]) for each in DIRECTIONS]
        cells += [f"{100 * share:.0f} %" for share in shares]
        cells.append(_weighed(of_memory(saved)[shape][OWN]["both"])[1])
        rows.append((shape, *cells))
    both = HEADS["both"]
    return Table(
        title="The sum beside its peers",
        columns=(
            "shape b,c,h,w,k,g",
            f"forward / {BASE}",
            f"{both} / {BASE}",
            f"{COMPILED} / {OWN}, forward",
            both,
            f"whole layer / {BASE}, {both}",
            "share of the roofline, forward",
            both,
            f"extra memory / inputs and outputs, {both}",
        ),
        sides="lrrrrrrrr",
        rows=tuple(rows),
    )


def times(saved: Saved) -> Table:
    """List the median times of all peers at all shapes, and their ratios to depthwise convolution."""
    rows = []
    for point in of_shapes(saved):
        for name, peer in point["peers"].items():
            cells = [c for direction in DIRECTIONS for c in timed(peer[direction], point["peers"][BASE][direction])]
            rows.append((str(Shape(*point["shape"])), name, "yes" if peer["same"] else "no", *cells))
    heads = [head for direction in DIRECTIONS for head in (f"{HEADS[direction]}, ms", f"/ {BASE}")]
    return Table(
        title="Time",
        columns=("shape b,c,h,w,k,g", "peer", "same sum", *heads),
        sides="lllrrrr",
        rows=tuple(rows),
        note=f"Medians of {saved['settings']['rounds']} rounds in turns; ratios within a round, their median and "
        "quartiles. Peers that compute no local sum stand beside it for what they cost: the layer generates its "
        "kernels as well, attention takes softmax over the same windows.",
    )


def memory(saved: Saved) -> Table:
    """List the peak memory of all peers beyond inputs and outputs, and its ratio to these."""
    rows = []
    for shape, peaks in of_memory(saved).items():
        for name, peak in peaks.items():
            cells = [cell for direction in DIRECTIONS for cell in _weighed(peak[direction])]
            rows.append((shape, name, *cells))
    heads = [head for each in DIRECTIONS for head in (f"{HEADS[each]}, MiB", "/ inputs and outputs")]
    return Table(
        title="Peak memory beyond inputs and outputs",
        columns=("shape b,c,h,w,k,g", "peer", *heads),
        sides="llrrrr",
        rows=tuple(rows),
        note="Inputs are features and weights, and backward the slope; outputs are the sum, and backward the gradients "
        "of all inputs as well.",
    )


def roofline(saved: Saved) -> Table:
    """List the least time that each sum must take on the machine, and which share of dynops' time that is."""
    machine = Roofline(**saved["points"]["roofline"]) if "roofline" in saved["points"] else Roofline(1, 1)
    rows = []
    for point in of_shapes(saved):
        for direction, passes in work_of(point).items():
            least, took = least_seconds(passes, machine), median(point["peers"][OWN][direction])
            bytes_, flops = (sum(numbers) for numbers in zip(*passes, strict=True))
            bounds = ", ".join(dict.fromkeys(each.bound(machine) for each in passes))
            shape, share = str(Shape(*point["shape"])), f"{100 * least / took:.0f} %"
            numbers = (f"{bytes_ / 1e6:.1f}", f"{flops / 1e6:.0f}", bounds, f"{1e3 * least:.3f}", f"{1e3 * took:.3f}")
            rows.append((shape, HEADS[direction], *numbers, share))
    return Table(
        title="Share of the roofline",
        columns=("shape b,c,h,w,k,g", "direction", "MB", "MFLOP", "bound by", "least, ms", f"{OWN}, ms", "share"),
        sides="llrrlrrr",
        rows=tuple(rows),
        note=f"Measured here: {machine.bandwidth / 1e9:.1f} GB/s copied, {machine.rate / 1e9:.0f} GFLOP/s in products "
        "of large matrices. Each number is moved once; what a cache holds moves faster, so a share may pass 100 %.",
    )


def sweeps(saved: Saved) -> Table:
    """List the median times along each axis."""
    rows = []
    for point in of_sweeps(saved):
        own, base = point["peers"][OWN], point["peers"][BASE]
        cells = []
        for each in DIRECTIONS:
            ours, ratio = timed(own[each], base[each])
            cells += [ours, timed(base[each], base[each])[0], ratio]
        rows.append((point["axis"], str(point["value"]), str(Shape(*point["shape"])), *cells))
    heads = [f"{peer} {HEADS[each]}" for each in DIRECTIONS for peer in (OWN, BASE, "/")]
    return Table(
        title="Sweeps, ms",
        columns=("axis", "value", "shape b,c,h,w,k,g", *heads),
        sides="lrlrrrrrr",
        rows=tuple(rows),
    )


def growth(saved: Saved) -> Table:
    """List how time grows with pixels, taps, channels and images."""
    rows = []
    for axis, by_peer in growths(saved).items():
        for peer, by_direction in by_peer.items():
            cells = [
                f"{each.slope:.2f} ± {each.error:.2f}" if (each := by_direction.get(direction)) else PLAIN
                for direction in DIRECTIONS
            ]
            rows.append((UNITS[axis], peer, *cells))
    return Table(
        title="Growth of time",
        columns=("with", "peer", *(HEADS[direction] for direction in DIRECTIONS)),
        sides="llrr",
        rows=tuple(rows),
        note="Slope of a line through the logarithms at the largest four values, with standard error; 1 is linear.",
    )


def losses(saved: Saved) -> Table:
    """Count where dynops takes longer than each peer, at the shapes and along the sweeps."""
    counted: dict[tuple[str, str], list[int]] = {}
    for where, points in (("shapes", of_shapes(saved)), ("sweeps", of_sweeps(saved))):
        for point in points:
            for name, peer in point["peers"].items():
                for number, direction in enumerate(DIRECTIONS):
                    if name == OWN or isinstance(peer[direction], str):
                        continue
                    counts = counted.setdefault((name, where), [0] * 4)
                    counts[2 * number] += median(point["peers"][OWN][direction]) > median(peer[direction])
                    counts[2 * number + 1] += 1
    return Table(
        title=f"Where {OWN} is slower",
        columns=("than", "at", *(HEADS[direction] for direction in DIRECTIONS)),
        sides="llrr",
        rows=tuple(
            (name, where, *(f"{lost} of {all_}" if all_ else PLAIN for lost, all_ in (counts[:2], counts[2:])))
            for (name, where), counts in counted.items()
        ),
    )


def of_shapes(saved: Saved) -> Iterator[Mapping[str, Any]]:
    """Go through what was measured at the shapes."""
    return (point for name, point in saved["points"].items() if name.startswith("shape "))


def of_memory(saved: Saved) -> dict[str, Any]:
    """Return the peaks of memory by shape."""
    return {
        name.removeprefix("memory "): found for name, found in saved["points"].items() if name.startswith("memory ")
    }


def of_sweeps(saved: Saved) -> Iterator[Mapping[str, Any]]:
    """Go through what was measured in the sweeps."""
    return (point for point in saved["points"].values() if "axis" in point)


def ratios(own: list[float], base: list[float]) -> tuple[float, float, float]:
    """Return the quartiles of the ratios within a round: low, median, high."""
    low, middle, high = quantiles([a / b for a, b in zip(own, base, strict=True)], n=4)
    return low, middle, high


def timed(own: list[float] | str, base: list[float] | str) -> tuple[str, str]:
    """Return the cells of a time and its ratio, or why there is none."""
    if isinstance(own, str):
        return own, PLAIN
    if isinstance(base, str):
        return f"{1e3 * median(own):.2f}", PLAIN
    low, middle, high = ratios(own, base)
    return f"{1e3 * median(own):.2f}", f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def work_of(point: Mapping[str, Any]) -> dict[str, tuple[Work, ...]]:
    """Return the work of the sum that was measured at a point."""
    return work(Place(Shape(*point["shape"]), dtype=DTYPES[point["dtype"]]))


def least_seconds(passes: tuple[Work, ...], machine: Roofline) -> float:
    """Return the least time that passes take, one after the other."""
    return sum(each.seconds(machine) for each in passes)


def _weighed(found: Mapping[str, int] | str) -> tuple[str, str]:
    if isinstance(found, str):
        return found, PLAIN
    return f"{found['extra'] / MIB:.1f}", f"{found['extra'] / found['held']:.2f}"
