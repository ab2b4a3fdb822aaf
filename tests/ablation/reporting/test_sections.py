"""The sections of a report beside verdicts and effects: regimes, standings, shares, power, aliases, registration."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from dynops.ablation.claims import Difference, Exceeds, Hypothesis, Interaction, Slope, Within
from dynops.ablation.designs import Fraction, Levels
from dynops.ablation.effects import Effects, effects
from dynops.ablation.plan import Plan, Registration
from dynops.ablation.reporting.document import to_markdown
from dynops.ablation.reporting.overview_tables import standing_table, variance_table
from dynops.ablation.reporting.power_table import lacking_table, power_table
from dynops.ablation.reporting.report_text import report_document
from dynops.ablation.reporting.sentences import disagreement, sign_change_words
from dynops.ablation.statistics.power import detectable, margin_for
from dynops.ablation.statistics.scale import SignChange
from dynops.records import RunRecord

DATA = Levels("data", ("few", "some", "all"), scale=(0.05, 0.2, 1.0))
KERNEL = Levels("kernel", ("constant", "pixel"))
CHANNELS = Levels("channels", ("every", "grouped"))
PIXEL = Difference("kernel", "pixel", "constant")
SHARING = Difference("channels", "grouped", "every")
GAIN = {"few": 0.06, "some": 0.02, "all": -0.04}
PLAN = Plan(
    name="p",
    question="q",
    factors=(DATA, KERNEL, CHANNELS),
    seeds=tuple(range(6)),
    regimes=("data",),
    family=(SHARING, Interaction(PIXEL, SHARING)),
    hypotheses=(
        Hypothesis("H1", "Sharing is worth more with more data.", (Exceeds((Slope(SHARING, "data"),)),)),
        Hypothesis("H2", "A pixel changes nothing", (Within(PIXEL, margin=0.004),)),
    ),
    margin=0.005,
)


def planted(plan: Plan = PLAN, noise: float = 0.01) -> list[RunRecord]:
    """Runs in which sharing gains with few data and loses with all, and a pixel does nothing and costs more."""
    generator = np.random.default_rng(0)
    return [
        RunRecord(
            levels=levels,
            seed=seed,
            status="complete",
            metrics={
                "accuracy": 0.7
                + 0.01 * seed
                + GAIN.get(levels.get("data", ""), 0.02) * (levels.get("channels") == "grouped")
                + noise * generator.normal()
            },
            parameters=50 if levels.get("channels") == "grouped" else 100,
            macs=2000 if levels.get("kernel") == "pixel" else 1000,
        )
        for seed in plan.seeds
        for levels in plan.cell_levels()
    ]


@pytest.fixture(scope="module")
def found() -> Effects:
    return effects(planted(), PLAN)


def text_of(plan: Plan, records: Sequence[RunRecord]) -> str:
    return to_markdown(report_document(plan, records, effects(records, plan), {}))


@pytest.fixture(scope="module")
def text() -> str:
    return text_of(PLAN, planted())


def section(text: str, title: str) -> str:
    start = text.index(f"{title}\n")
    end = text.find("\n#", start)
    return text[start:end]


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines[2:]]


def test_verdicts_come_first_and_exploratory_tables_late(text: str) -> None:
    titles = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert titles == [
        "Verdicts",
        "Effects",
        "Over data",
        "Cells",
        "What explains the differences",
        "What this number of seeds can show",
        "Setup",
        "Exploratory effects, unadjusted",
        "Failures, divergences and gaps",
        "Files",
    ]
    assert "n = 6 of 6 seeds · 72 of 72 runs · device not recorded · hypotheses: 1 refuted, 1 undecided" in text


def test_each_effect_has_a_section_over_its_regime(text: str, found: Effects) -> None:
    sharing = found.profiles[0]
    said = section(text, "### channels: grouped - every")
    first = rows(said)[0]
    at = sharing.at[0]
    assert at.estimate is not None
    assert at.interval is not None
    assert at.robust is not None
    low, high, least, most = (100 * end for end in (*at.interval, *at.robust))
    assert first[:5] == [
        "few",
        "0.05",
        f"{100 * at.estimate:+.2f}",
        f"[{low:+.2f}, {high:+.2f}]",
        f"[{least:+.2f}, {most:+.2f}]",
    ]
    assert [row[0] for row in rows(said)] == ["few", "some", "all"]
    assert first[-1] == "differs"


def test_a_profile_says_what_is_pooled_how_it_grows_and_where_it_turns(text: str, found: Effects) -> None:
    said = section(text, "### channels: grouped - every")
    pooled, slope, change = found.profiles[0].pooled, found.profiles[0].slope, found.profiles[0].sign_change
    assert pooled is not None
    assert pooled.between is not None
    assert pooled.interval is not None
    assert slope is not None
    assert slope.estimate is not None
    assert change is not None
    assert change.estimate is not None
    assert change.low is not None
    assert change.high is not None
    assert f"- Pooled over 3 levels, as if drawn from many: {100 * pooled.mean:+.2f} (95 % interval [" in said
    assert "; by a mixed model " in said
    assert "], approximate)." in said
    assert f"- Heterogeneity: a standard deviation of {100 * pooled.between:.2f} between levels, of " in said
    assert f"- Slope: {100 * slope.estimate:+.2f} with each doubling of data (95 % interval [" in said
    assert "<0.001, n = 6): differs." in said
    ends = f"95 % interval from {change.low:.3g} to {change.high:.3g}, closed on both sides."
    assert f"- Sign change: once, at about {change.estimate:.3g}; {ends}" in said


def test_an_effect_without_heterogeneity_says_so(text: str) -> None:
    said = section(text, "### kernel x channels: (pixel - constant) x (grouped - every)")
    assert "Heterogeneity: a standard deviation of " in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            SignChange(crossings=1, estimate=0.3, low=0.25, high=0.4, reach="closed"),
            "once, at about 0.3; 95 % interval from 0.25 to 0.4, closed on both sides.",
        ),
        (
            SignChange(crossings=1, estimate=0.3, low=None, high=0.4, reach="open below"),
            "once, at about 0.3; 95 % interval up to 0.4, open below: it may lie below the smallest scale, 0.05.",
        ),
        (
            SignChange(crossings=1, estimate=0.3, low=0.25, high=None, reach="open above"),
            "once, at about 0.3; 95 % interval from 0.25 on, open above: it may lie above the largest scale, 1.",
        ),
        (
            SignChange(crossings=2, estimate=None, low=None, high=None, reach="open"),
            "2 times from 0.05 to 1, so that there is no single one; 95 % interval open on both sides: it may lie "
            "anywhere from 0.05 to 1, or beyond.",
        ),
        (
            SignChange(crossings=0, estimate=None, low=None, high=None, reach="empty"),
            "none of the mean effect from 0.05 to 1; 95 % interval empty: no scale from 0.05 to 1 may be one.",
        ),
        (
            SignChange(crossings=1, estimate=0.3, low=None, high=None, reach="unknown"),
            "once, at about 0.3; 95 % interval not known below three seeds.",
        ),
    ],
)
def test_a_sign_change_is_told_in_words(change: SignChange, words: str, found: Effects) -> None:
    assert sign_change_words(change, 0.05, 1.0, found) == words


def test_standings_give_ranks_chances_and_the_front(found: Effects) -> None:
    table = standing_table(found, PLAN)
    first, *others = found.standings
    assert table.rows[0][2:5] == ("-", "-", "-")
    for row, each in zip(table.rows[1:], others, strict=True):
        assert each.beats_first is not None
        low, high = each.beats_first.interval
        assert row[0] == each.cell.replace(",", ", ")
        assert row[1:4] == (f"{each.mean_rank:.2f}", f"{each.beats_first.probability:.2f}", f"[{low:.2f}, {high:.2f}]")
        assert row[4] == f"{each.beats_first.wins} of 6"
        assert row[5:] == ("yes" if each.on_front else "no", f"{each.front_probability:.2f}")
    assert "Friedman's test of equal ranks: p <0.001 (by the chi square distribution, rough and on" in table.note
    assert f"better than {first.cell.replace(',', ', ')}, ties half" in table.note
    assert "Cells of all levels of data are ranked together." in table.note


def test_shares_of_variance_are_listed_with_what_they_are(found: Effects, text: str) -> None:
    table = variance_table(found)
    assert table.rows[0] == (" x ".join(found.variance[0].factors), f"{100 * found.variance[0].share:.1f} %")
    assert "closed form on cell means, with the noise of the seeds taken off. No interval" in table.note
    assert table.note in text
    assert {row[0] for row in table.rows[:2]} == {"data", "data x channels"}


def test_power_gives_the_smallest_effect_that_the_seeds_could_have_shown(found: Effects) -> None:
    table = power_table(found, PLAN)
    assert [row[0].split(":")[0] for row in table.rows] == ["H1", "H2", "H2", "channels", "kernel x channels"]
    effect = next(each for each in found.effects if each.in_family)
    deviation = float(effect.values.std(ddof=1))
    row = table.rows[3]
    assert row[3:5] == (f"{100 * deviation:.2f}", "6")
    assert row[5] == f"{100 * detectable(deviation, 6, 0.05 / 2):.2f}"
    assert row[6] == f"{100 * margin_for(deviation, 6, 0.05 / 2):.2f}"
    part = found.verdicts[1].parts[0]
    size = detectable(float(part.values.std(ddof=1)), 6, 0.05 / 2 / 2, alternative="larger")
    assert table.rows[1][5] == f"{100 * size:.2f}"
    assert table.rows[1][7] == f"{found.verdicts[1].seeds_needed:,}"


def test_undecided_exploratory_effects_say_what_they_lack(found: Effects, text: str) -> None:
    table = lacking_table(found)
    undecided = [each for each in found.effects if not each.in_family and each.verdict == "undecided"]
    assert [row[0] for row in table.rows] == [each.name for each in undecided]
    assert all(row[-1] for row in table.rows)
    assert text.index("### What undecided exploratory effects lack") > text.index("## Exploratory effects, unadjusted")


def test_two_seeds_have_neither_power_nor_bootstrap() -> None:
    plan = replace(PLAN, seeds=(0, 1))
    two = effects(planted(plan), plan)
    assert power_table(two, plan).rows[0][3:] == (*power_table(two, plan).rows[0][3:5], "-", "-", "at least 3")
    assert "Bootstrap intervals are given from 5 seeds on." in text_of(plan, planted(plan))
    assert standing_table(two, plan).rows[0][-1] == "-"


def test_intervals_that_disagree_about_0_are_named(found: Effects) -> None:
    effect = found.effects[0]
    apart = replace(effect, interval=(0.001, 0.02), robust=(-0.001, 0.02))
    agree = replace(effect, interval=(0.001, 0.02), robust=(0.001, 0.02))
    said = disagreement([apart, agree])
    assert said.startswith(f"**The t interval and the bootstrap interval disagree about 0** for {effect.name} (0 lies ")
    assert "(0 lies in the bootstrap interval only)" in said
    assert said.endswith("They agree for the other 1.")
    assert disagreement([agree, agree]).endswith("for every effect here: 0 lies in both or in neither.")
    assert disagreement([agree]).endswith("for the effect here: 0 lies in both or in neither.")
    turned = replace(effect, interval=(-0.001, 0.02), robust=(0.001, 0.02))
    assert "(0 lies in the t interval only)" in disagreement([turned])


def test_a_fraction_names_aliases_and_what_is_run() -> None:
    factors = tuple(Levels(name, ("off", "on")) for name in "abcd")
    pair = Interaction(Difference("a", "on", "off"), Difference("b", "on", "off"))
    plan = replace(PLAN, factors=factors, regimes=(), design=Fraction(), hypotheses=(), family=(pair,))
    said = text_of(plan, planted(plan))
    alias = "- a x b: (on - off) x (on - off) cannot be told from c x d: (on - off) x (on - off): the estimate is that"
    assert alias in section(said, "### Confirmatory effects")
    assert "- Design: `Fraction()`, 8 of 16 combinations of levels" in said
    assert "## What explains the differences" not in said


def registered(plan: Plan, stated: Plan) -> Plan:
    statement = stated.statement()
    return replace(plan, registration=Registration(statement, "2026-01-01", hash=statement.fingerprint()))


def test_verdicts_on_what_was_changed_after_registration_are_marked() -> None:
    changed = replace(PLAN.hypotheses[1], parts=(Within(PIXEL, margin=0.03),))
    late = (*PLAN.family, PIXEL)
    plan = registered(replace(PLAN, hypotheses=(PLAN.hypotheses[0], changed), family=late), PLAN)
    said = text_of(plan, planted(plan))
    assert "- **H1 is refuted**: " in said
    assert "- **H2 is supported (exploratory)**: A pixel changes nothing\n" in said
    assert "hypotheses: 1 refuted, 1 supported (exploratory)" in said
    assert "Verdicts are exploratory where they rest on what was changed: H2\n" in said
    assert (
        "**Exploratory**, since they joined the family after it was registered: kernel: pixel - constant."
        in section(said, "### Confirmatory effects")
    )


def test_another_outcome_or_level_makes_all_verdicts_exploratory() -> None:
    plan = registered(replace(PLAN, level=0.1), PLAN)
    assert text_of(plan, planted(plan)).count("(exploratory)**: ") == 2


def test_what_was_registered_and_kept_is_not_marked() -> None:
    plan = registered(PLAN, PLAN)
    said = text_of(plan, planted(plan))
    assert "unchanged since\n" in said
    assert "(exploratory)" not in said


def test_a_claim_without_a_full_stop_gets_one_before_what_it_lacks(text: str) -> None:
    assert "- **H2 is undecided**: A pixel changes nothing. It lacks evidence: " in text
