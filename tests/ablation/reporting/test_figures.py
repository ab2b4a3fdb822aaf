"""Figures: what is drawn, from studies whose numbers are known."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from dynops.ablation.claims import Difference, Slope
from dynops.ablation.designs import Levels, OneFactor
from dynops.ablation.effects import effects
from dynops.ablation.plan import Plan
from dynops.ablation.reporting.cost_figure import costs
from dynops.ablation.reporting.curve_figures import curves
from dynops.ablation.reporting.drawing import COLOURS, cell_styles, pixels
from dynops.ablation.reporting.figures import all_figures, interaction, pairs
from dynops.ablation.reporting.forest import MOST_ROWS, forest
from dynops.ablation.reporting.heat_maps import kernel_maps
from dynops.ablation.reporting.power_figure import power_curve
from dynops.ablation.reporting.regime_figures import over_regime
from dynops.ablation.reporting.results import counted
from dynops.ablation.reporting.share_figures import attribution_bars, variance_bars
from dynops.ablation.statistics.power import detectable
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


def test_longer_forest_leaves_interactions_to_the_table_too():
    plan = plan_of(KERNEL, Levels("operator", tuple(f"o{each}" for each in range(23))), seeds=1)
    found = effects(records_of(plan), plan)
    figure = forest(found)
    assert title(figure).endswith("\n112 simple effects and 44 interactions are in the table only")
    assert len(labels(figure.axes[0].yaxis)) == 1 + 2 + 22


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


DATA = Levels("data", ("few", "some", "all"), scale=(0.05, 0.2, 1.0))
SHARING = Difference("channels", "grouped", "specific")


def regimes(gains=(0.06, 0.02, -0.04), **rest):
    """A study over data, in which sharing channels gains so much in each regime."""
    settings = {"regimes": ("data",), "family": (SHARING,), "margin": 0.01, **rest}
    plan = plan_of(settings.pop("data", DATA), CHANNELS, **settings)
    generator = np.random.default_rng(0)
    records = [
        RunRecord(
            levels=levels,
            seed=seed,
            status="complete",
            metrics={
                "accuracy": 0.7
                + gains[DATA.levels.index(levels["data"])] * (levels["channels"] == "grouped")
                + 0.002 * generator.normal()
            },
            parameters=100,
            macs=100,
        )
        for seed in plan.seeds
        for levels in plan.cell_levels()
    ]
    return plan, effects(records, plan)


def test_effect_over_a_scale_has_a_logarithmic_axis_intervals_margin_and_zero_line():
    plan, found = regimes()
    (axes,) = over_regime(plan, found, found.profiles[0]).axes
    assert axes.get_xscale() == "log"
    assert labels(axes.xaxis) == ["few\n0.05", "some\n0.2", "all\n1"]
    points = next(line for line in axes.lines if line.get_label() == "effect")
    expected = [(place, 100 * each.estimate) for place, each in zip(DATA.scale, found.profiles[0].at, strict=True)]
    np.testing.assert_allclose(np.transpose(points.get_data()), expected)
    bars = [line for line in axes.lines if line.get_linewidth() == 2]
    assert [tuple(line.get_ydata()) for line in bars] == [
        tuple(100 * end for end in each.interval) for each in found.profiles[0].at
    ]
    assert any(list(line.get_ydata()) == [0, 0] for line in axes.lines)
    assert len(axes.patches) == 2
    assert "n = 8 seeds" in title(axes.figure)


def test_effect_over_a_scale_marks_its_change_of_sign_and_what_may_be_it():
    plan, found = regimes()
    (axes,) = over_regime(plan, found, found.profiles[0]).axes
    change = found.profiles[0].sign_change
    line = next(line for line in axes.lines if line.get_linestyle() == "--")
    assert list(line.get_xdata()) == [change.estimate] * 2
    band = axes.patches[-1].get_extents().transformed(axes.transData.inverted())
    assert (band.x0, band.x1) == (pytest.approx(change.low), pytest.approx(change.high))
    assert [text.get_text() for text in axes.texts] == [f"changes its sign at {change.estimate:.3g}"]


def test_effect_that_keeps_its_sign_has_no_mark():
    plan, found = regimes(gains=(0.06, 0.05, 0.04))
    (axes,) = over_regime(plan, found, found.profiles[0]).axes
    assert not axes.texts
    assert len(axes.patches) == 1


def test_effect_over_regimes_without_a_scale_has_no_line():
    plan, found = regimes(data=Levels("data", DATA.levels))
    (axes,) = over_regime(plan, found, found.profiles[0]).axes
    assert axes.get_xscale() == "linear"
    assert labels(axes.xaxis) == list(DATA.levels)
    assert [len(line.get_xdata()) for line in axes.lines] == [2, 2, 2, 2, 3]
    assert not [line for line in axes.lines if len(line.get_xdata()) == 3 and line.get_linestyle() == "-"]


def test_slope_in_the_family_has_a_row_in_the_forest():
    _, found = regimes(family=(SHARING, Slope(SHARING, "data")))
    rows = labels(forest(found).axes[0].yaxis)
    assert rows[2] == "slope along data of channels: grouped - specific"


def test_costs_show_the_front_as_a_line_and_its_sureness_as_size(plan):
    found = effects(records_of(plan), plan)
    left, right = costs(plan, found).axes
    for axes, cost in ((left, "parameters"), (right, "macs")):
        line = next(line for line in axes.lines if line.get_label() == "front")
        assert line.get_drawstyle() == "steps-post"
        xs, ys = line.get_data()
        for cell in found.cells:
            best = max(each.mean for each in found.cells if getattr(each, cost) <= getattr(cell, cost))
            on_line = (getattr(cell, cost), pytest.approx(100 * best)) in list(zip(xs, ys, strict=True))
            assert on_line or best > cell.mean
    sizes = {
        (line.get_xdata()[0], line.get_ydata()[0]): line.get_markersize()
        for line in left.lines
        if len(line.get_xdata()) == 1
    }
    for cell, standing in zip(found.cells, found.standings, strict=True):
        assert sizes[cell.parameters, 100 * cell.mean] == pytest.approx(5 + 7 * standing.front_probability)


def test_many_cells_have_a_panel_for_each_level_and_all_others_in_grey():
    plan = plan_of(KERNEL, Levels("depth", ("2", "4", "6", "8")), seeds=3)
    figure = curves(plan, records_of(plan))
    assert [axes.get_title() for axes in figure.axes] == [f"depth={depth}" for depth in (2, 4, 6, 8)]
    assert [bool(axes.get_xlabel()) for axes in figure.axes] == [True] * 4
    for axes in figure.axes:
        colours = [line.get_color() for line in axes.lines]
        assert colours == ["0.88"] * 9 + list(COLOURS[:3])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(KERNEL.levels)


def test_twelve_operators_have_a_panel_each_and_no_legend():
    plan = plan_of(Levels("operator", tuple(f"o{each}" for each in range(13))), seeds=1)
    figure = curves(plan, records_of(plan))
    visible = [axes for axes in figure.axes if axes.get_visible()]
    assert [len(axes.lines) for axes in visible] == [13] * 13
    assert [bool(axes.get_xlabel()) for axes in visible] == [False] * 9 + [True] * 4
    assert not figure.legends


def test_legend_of_many_cells_names_levels_and_not_cells():
    plan = plan_of(KERNEL, Levels("depth", tuple("abcdef")), seeds=1)
    figure = costs(plan, effects(records_of(plan), plan))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*KERNEL.levels, *"abcdef"]
    assert legend.get_title().get_text() == "colour: kernel; shape: depth"


def test_shares_of_a_change_add_up_to_the_whole(plan):
    change = (Difference("kernel", "window", "constant"), Difference("channels", "grouped", "specific"))
    found = effects(records_of(plan), replace(plan, change=change))
    (axes,) = attribution_bars(found).axes
    first, second, whole = axes.patches
    assert first.get_x() == 0
    assert second.get_x() == pytest.approx(first.get_width())
    assert second.get_x() + second.get_width() == pytest.approx(whole.get_width())
    assert (whole.get_x(), whole.get_width()) == (0, pytest.approx(100 * found.attribution[0].estimate))
    lines = [tuple(line.get_xdata()) for line in axes.lines if line.get_marker() == "|"]
    low, high = found.attribution[2].interval
    start = found.attribution[1].estimate
    assert lines[1] == pytest.approx((100 * (start + low), 100 * (start + high)))
    assert attribution_bars(effects(records_of(plan), plan)) is None


def test_shares_of_variance_are_drawn_in_percent(plan):
    found = effects(records_of(plan), plan)
    (axes,) = variance_bars(found).axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([100 * each.share for each in found.variance])
    assert labels(axes.yaxis)[0] == "kernel"
    assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(100)


def test_power_curve_falls_with_the_seeds_and_marks_the_present_number_and_the_margin(plan):
    found = effects(records_of(plan), plan)
    (axes,) = power_curve(plan, found).axes
    (effect,) = (each for each in found.effects if each.in_family)
    curve = next(line for line in axes.lines if line.get_label() == effect.name)
    sizes = dict(zip(*curve.get_data(), strict=True))
    assert list(sizes)[:3] == [3, 4, 5]
    assert max(sizes) == 32
    assert list(sizes.values()) == sorted(sizes.values(), reverse=True)
    assert sizes[8] == pytest.approx(100 * detectable(effect.values.std(ddof=1), 8, 0.05))
    (dot,) = (line for line in axes.lines if len(line.get_xdata()) == 1)
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (8, pytest.approx(100 * abs(effect.estimate)))
    assert any(list(line.get_xdata()) == [8, 8] for line in axes.lines)
    assert any(list(line.get_ydata()) == [1, 1] for line in axes.lines)
    assert [text.get_text() for text in axes.texts] == ["n = 8", "margin"]


def test_no_power_curve_without_a_family_or_with_two_seeds(plan):
    assert power_curve(plan, effects(records_of(plan), replace(plan, family=()))) is None
    few = replace(plan, seeds=(0, 1))
    assert power_curve(few, effects(records_of(few), few)) is None


def test_pairs_that_a_design_does_not_balance_are_not_drawn():
    plan = plan_of(KERNEL, CHANNELS, Levels("depth", ("2", "4")))
    assert pairs(plan) == [("kernel", "channels"), ("kernel", "depth"), ("channels", "depth")]
    assert pairs(replace(plan, design=OneFactor(ways=("in",)))) == []
