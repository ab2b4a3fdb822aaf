"""The TensorBoard page of the study of speed: sweeps as curves, tables as text, figures as images."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from dynops.ablation.reporting.drawing import pixels
from studies.speed.peers import DIRECTIONS
from studies.speed.sweeps import PEERS, VALUES, of_axis
from studies.speed.tables import HEADS, Saved, tables


def write_page(folder: Path, saved: Saved, drawn: Mapping[str, Figure]) -> None:
    """Write the page; an earlier one in the folder is replaced.

    A run for each peer holds the median times in ms, with the value of the axis as the step; the root run holds tables
    and figures.
    """
    for peer in PEERS:
        with _writer(folder / peer) as writer:
            for axis in VALUES:
                for value, point in of_axis(saved, axis).items():
                    for direction in DIRECTIONS:
                        if not isinstance(times := point["peers"][peer][direction], str):
                            writer.add_scalar(f"{axis}/{HEADS[direction]}, ms", 1e3 * median(times), value)
    with _writer(folder) as writer:
        for number, table in enumerate(tables(saved), start=1):
            writer.add_text(f"speed/{number} {table.title.lower()}", table.to_markdown())
        for name, figure in drawn.items():
            writer.add_image(f"speed/{name}", pixels(figure), dataformats="HWC")


@contextmanager
def _writer(folder: Path) -> Iterator[SummaryWriter]:
    for stale in folder.glob("events.out.tfevents.*"):
        stale.unlink()
    writer = SummaryWriter(str(folder))
    try:
        yield writer
    finally:
        writer.close()
