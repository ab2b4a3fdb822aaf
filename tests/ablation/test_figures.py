"""Figures: what is drawn, from studies whose numbers are known."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from dynops.ablation.claims import Difference
from dynops.ablation.designs import Levels
from dynops.ablation.drawing import COLOURS, cell_styles, pixels
from dynops.ablation.effects import effects
from dynops.ablation.figures import all_figures, costs, curves, interaction, pairs
from dynops.ablation.forest import MOST_ROWS, forest
from dynops.ablation.heat_maps import kernel_maps
from dynops.ablation.plan import Plan
from dynops.ablation.results import counted
from dynops.ablation.verdicts import mean_interval
from dynops.errors import RecordError
from dynops.records import RunRecord

KERNEL = Levels("kernel", ("constant", "pixel", "window"))
CHANNELS = Levels("channels", ("specific", "grouped"))
GAINS = {"constant": 0.0, "pixel": 0.04, "window": 0.05, "specific": 0.0, "grouped": -0.01}


def plan_of(*factors, seeds=8, **rest):
    return Plan(name="study", question="Which part?", factors=factors, seeds=tuple(range(seeds)), **rest)


def records_of(plan, *, epochs=3, images=None):
    generator = np.random.default_rng(0)
    records = []
    for seed in plan.seeds:
        for place, levels in enumerate(plan.cell_levels()):
            share = 0.8 + sum(GAINS.get(level, 0.0) for level in levels.values()) + 0.01 * generator.normal()
            history = tuple({"epoch": epoch + 1, "train_loss": 1.0, "accuracy": share} for epoch in range(epochs))
            records.append(
                RunRecord(
                    levels=levels,
                    seed=seed,
                    status="complete",
                    metrics={"accuracy": share, "loss": 1 - share},
                    history=history,
                    parameters=1000 * (place + 1),
                    macs=10 ** (4 + place % 3),
                    images=images or {},
                )
            )
    return records


def images_of(n=2, layers=3):
    generator = np.random.default_rng(1)
    kernels = {f"stage{each}": generator.normal(size=(n, 4, 4)).tolist() for each in range(layers)}
    return {"inputs": generator.random((n, 3, 8, 8)).tolist(), "kernels": kernels}


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def title(figure):
    return figure.get_suptitle()


@pytest.fixture
def plan():
    return plan_of(KERNEL, CHANNELS, margin=0.01, family=(Difference("kernel", "pixel", "constant"),))


def test_forest_has_a_row_for_each_effect_under_its_heading(plan):
    found = effects(records_of(plan), plan)
    left, right = forest(found).axes
    rows = labels(left.yaxis)
    assert rows[:3] == ["Confirmatory (Holm-adjusted family)", "kernel: pixel - constant", "Exploratory (unadjusted)"]
    assert len(rows) == 2 + len(found.effects)
    first = next(effect for effect in found.effects if effect.in_family)
    assert labels(right.yaxis)[1].startswith(f"{100 * first.estimate:+.2f} [")


def test_forest_draws_intervals_zero_line_and_margin(plan):
    found = effects(records_of(plan), plan)
    axes = forest(found).axes[0]
    intervals = [
        tuple(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 2
    ]
    expected = {tuple(100 * end for end in effect.interval) for effect in found.effects}
    assert set(intervals) == expected
    assert any(list(line.get_xdata()) == [0, 0] for line in axes.lines)
    assert [patch.get_extents() for patch in axes.patches]


def test_forest_tells_kinds_and_families_apart(plan):
    axes = forest(effects(records_of(plan), plan)).axes[0]
    points = [line for line in axes.lines if len(line.get_xdata()) == 1]
    assert {line.get_color() for line in points} == {COLOURS[0], COLOURS[1], COLOURS[3]}
    filled = [line for line in points if to_hex(line.get_markerfacecolor()) != "#ffffff"]
    assert len(filled) == 1


def test_forest_below_three_seeds_says_that_it_has_no_interval():
    plan = plan_of(KERNEL, CHANNELS, seeds=2)
    figure = forest(effects(records_of(plan), plan))
    assert "n = 2 seeds, too few for intervals" in title(figure)
    assert labels(figure.axes[1].yaxis)[1].endswith("no interval (n = 2)")


def test_long_forest_leaves_simple_effects_to_the_table():
    plan = plan_of(*(Levels(f"factor{each}", ("a", "b", "c")) for each in range(3)), seeds=3)
    found = effects(records_of(plan), plan)
    figure = forest(found)
    rows = sum(effect.kind == "simple" for effect in found.effects)
    assert len(found.effects) > MOST_ROWS
    assert f"{rows} simple effects are in the table only" in title(figure)


def test_interaction_draws_a_line_for_each_level_through_the_means(plan):
    records = records_of(plan)
    figure = interaction(plan, records, "kernel", "channels")
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["specific", "grouped"]
    line = next(line for line in axes.lines if line.get_label() == "grouped")
    cell = [record.metrics["accuracy"] for record in records if record.cell == "kernel=pixel,channels=grouped"]
    assert line.get_ydata()[1] == pytest.approx(100 * np.mean(cell))
    faint = [line for line in axes.lines if line.get_alpha() == 0.25]
    assert [len(line.get_xdata()) for line in faint] == [8] * 6
    assert "n = 8 seeds" in title(figure)


def test_interaction_leaves_out_seeds_that_lack_a_cell_it_averages():
    plan = plan_of(KERNEL, CHANNELS, Levels("depth", ("2", "4")), seeds=4)
    records = records_of(plan)
    figure = interaction(plan, records[1:], "kernel", "channels")
    faint = [line for line in figure.axes[0].lines if line.get_alpha() == 0.25]
    assert sorted(len(line.get_xdata()) for line in faint) == [3, 4, 4, 4, 4, 4]
    assert "n = 3 to 4 seeds" in title(figure)


def test_one_factor_has_no_connecting_line_and_no_legend():
    plan = plan_of(KERNEL, outcome="loss", unit="raw", higher_is_better=False)
    (axes,) = interaction(plan, records_of(plan), "kernel").axes
    assert axes.get_legend() is None
    assert axes.get_ylabel() == "loss, lower is better"
    assert pairs(plan) == [("kernel", None)]


def test_costs_place_each_cell_at_its_parameters_and_macs(plan):
    found = effects(records_of(plan), plan)
    left, right = costs(plan, found).axes
    for axes, cost in ((left, "parameters"), (right, "macs")):
        points = {(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if len(line.get_xdata()) == 1}
        assert points == {(getattr(cell, cost), 100 * cell.mean) for cell in found.cells}
        low, high = axes.get_ylim()
        assert low < 100 * min(cell.interval[0] for cell in found.cells) < high
    assert (left.get_xscale(), right.get_xscale()) == ("linear", "log")


def test_curves_show_the_mean_over_seeds_of_complete_runs_only(plan):
    records = records_of(plan)
    records[0] = RunRecord(levels=records[0].levels, seed=0, status="diverged", metrics={"accuracy": 0.1, "loss": 9.0})
    figure = curves(plan, records)
    loss, accuracy = figure.axes
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("training loss", "evaluation accuracy (points)")
    assert len(accuracy.lines) == 6
    rest = [record.metrics["accuracy"] for record in records[6:] if record.cell == records[0].cell]
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), 100 * np.mean(rest))
    assert "n = 7 to 8 seeds" in title(figure)


def test_no_curves_without_a_history(plan):
    assert curves(plan, records_of(plan, epochs=0)) is None


def test_kernel_maps_have_a_row_for_each_image_and_a_column_for_each_layer(plan):
    record = records_of(plan, images=images_of(n=2, layers=3))[0]
    figure = kernel_maps(record)
    maps = [axes for axes in figure.axes if axes.images]
    assert len(maps) == 2 * 4
    assert [axes.get_title() for axes in maps[:4]] == ["input", "stage0", "stage1", "stage2"]
    np.testing.assert_array_equal(maps[1].images[0].get_array(), record.images["kernels"]["stage0"][0])
    assert maps[1].images[0].get_clim() == maps[5].images[0].get_clim()
    assert "seed 0" in title(figure)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"kernels": {"a": [[[1.0]]]}}, r"images has inputs of axes \(0,\) and 1 layers of kernels: must hold inputs"),
        ({"inputs": [[[[1.0]]]], "kernels": {"a": [[1.0]]}}, r"images has kernels of axes \(1, 1\) in a, inputs"),
    ],
)
def test_kernel_maps_say_what_images_must_hold(images, message):
    with pytest.raises(RecordError, match=message):
        kernel_maps(RunRecord(seed=0, status="complete", images=images))


def test_all_figures_are_tagged_in_groups_and_drawn_without_a_warning(plan):
    records = records_of(plan, images=images_of())
    figures = all_figures(plan, records, effects(records, plan))
    assert list(figures)[:4] == ["effects/all", "factors/kernel by channels", "outcome/cost", "outcome/learning curves"]
    assert sum(tag.startswith("kernels/") for tag in figures) == 6
    for figure in list(figures.values())[:5]:
        assert pixels(figure).std() > 1


def test_all_figures_of_a_single_result_are_drawn():
    plan = plan_of(KERNEL, CHANNELS, seeds=3)
    records = records_of(plan, epochs=1)[:1]
    figures = all_figures(plan, records, effects(records, plan))
    assert sorted(figures) == ["factors/kernel by channels", "outcome/cost", "outcome/learning curves"]
    assert all(isinstance(figure, Figure) and pixels(figure).ndim == 3 for figure in figures.values())


def test_no_two_of_twenty_cells_look_alike():
    plan = plan_of(Levels("operator", tuple(f"o{each}" for each in range(10))), CHANNELS)
    styles = cell_styles(plan).values()
    assert len({(style.colour, style.marker) for style in styles}) == len(styles)


def test_first_result_of_a_point_counts_and_a_failure_only_without_one(plan):
    levels = plan.cell_levels()[0]
    lost = RunRecord(levels=levels, seed=0, status="failed", reason="lost")
    first, second = (
        RunRecord(levels=dict(reversed(levels.items())), seed=0, status="complete", metrics={"accuracy": value})
        for value in (0.1, 0.2)
    )
    assert counted([lost, first, second], plan) == [first]
    assert counted([lost, lost], plan) == [lost]


def test_interval_of_three_values_is_the_t_interval():
    mean, interval = mean_interval([1.0, 2.0, 3.0])
    assert (mean, interval) == (2.0, pytest.approx((2 - 2.484, 2 + 2.484), abs=1e-3))
