"""What a study's report holds, section by section: the one source of its Markdown and of its page."""

from collections.abc import Iterator, Mapping, Sequence

from dynops.ablation.effects import Effect, Effects
from dynops.ablation.plan import Plan
from dynops.ablation.reporting.document import (
    Block,
    Document,
    Finding,
    Findings,
    Items,
    Picture,
    Section,
    pictures,
    sentence,
)
from dynops.ablation.reporting.overview_tables import profile_table, standing_table, variance_table
from dynops.ablation.reporting.power_table import lacking_table, power_table
from dynops.ablation.reporting.results import shown_seeds
from dynops.ablation.reporting.sentences import aliases, changed_family, disagreement, profile_sentences
from dynops.ablation.reporting.setup_text import cost_statement, counts, distinct, losses, setup
from dynops.ablation.reporting.tables import (
    attribution_table,
    cell_table,
    effect_tables,
    seeds_lacking,
    verdict_table,
    verdict_word,
)
from dynops.ablation.reporting.tuning_text import tuning_table
from dynops.records import RunRecord

SERVER = "http://localhost:6006"
ROOT = "regexInput=%5E%5C.%24"


def report_document(
    plan: Plan, records: Sequence[RunRecord], effects: Effects, figures: Mapping[str, Picture]
) -> Document:
    """Put the report of a study together.

    Args:
        plan: what was decided before the first run.
        records: all records of the study; equal records give an equal document.
        effects: what the records say.
        figures: figures by tag.
    """
    sections = (
        Section(title="Verdicts", blocks=_verdicts(plan, effects)),
        Section(title="Effects", blocks=_effects(plan, effects, figures)),
        *_regimes(plan, effects, figures),
        Section(title="Cells", blocks=_cells(plan, effects, figures)),
        *_optional("What explains the differences", _variance(effects, figures)),
        *_optional("What this number of seeds can show", _power(plan, effects, figures)),
        *_optional("Kernels", pictures(figures, "kernels")),
        Section(title="Setup", blocks=(Items(lines=tuple(setup(plan, records, effects))), *_tuning(plan))),
        Section(title="Exploratory effects, unadjusted", blocks=_exploratory(plan, effects), folded=True),
        Section(title="Failures, divergences and gaps", blocks=tuple(losses(plan, records))),
        Section(title="Files", blocks=(_files(plan),)),
    )
    return Document(
        title=plan.name, question=plan.question, summary=_summary(plan, records, effects), sections=sections
    )


def pages(plan: Plan) -> dict[str, str]:
    """Return the addresses of TensorBoard's pages, by what they show, for a server at its usual port.

    Beyond 40 runs TensorBoard selects none by itself, so the addresses bring a filter along.
    """
    found = {
        "cells": "#hparams",
        "figures": f"#images&{ROOT}",
        "verdicts and effects": f"#text&{ROOT}",
        "curves over seeds, and evidence with more seeds": "#custom_scalars&regexInput=%5E%5C.%24%7C%5Emean%2F",
        "curves of one seed": f"#scalars&regexInput=seed%3D{plan.seeds[0]}%24",
    }
    return {name: f"{SERVER}/{page}" for name, page in found.items()}


def _files(plan: Plan) -> str:
    links = ", ".join(f"[{name}]({address})" for name, address in pages(plan).items())
    shown, planned = len(shown_seeds(plan)), len(plan.seeds)
    first = "the first seed has" if shown == 1 else f"the first {shown} seeds have"
    few = f" Of {planned:,} seeds {first} runs of their own there, over which its page of cells averages."
    return (
        "`records.jsonl` holds the plan and every run, and all else is made from it: `report.html` this report as a "
        "page of its own, `effects.json` the numbers above, `figures/` the figures, `tensorboard/` what "
        f"`tensorboard --logdir tensorboard` shows: {links}.{few if shown < planned else ''}"
    )


def findings(plan: Plan, effects: Effects) -> list[Finding]:
    """Return the verdict on each hypothesis, with what it lacks if it is undecided."""
    found = []
    for verdict in effects.verdicts:
        n = min((len(part.by_seed) for part in verdict.parts), default=0)
        undecided = verdict.verdict == "undecided"
        lacks = f"It lacks evidence: {seeds_lacking(n, verdict.seeds_needed)}." if undecided else ""
        word = verdict_word(verdict, plan)
        found.append(Finding(name=verdict.name, verdict=word, claim=verdict.claim, lacks=lacks))
    return found


def verdict_sentences(plan: Plan, effects: Effects) -> list[tuple[str, str]]:
    """Return, for each hypothesis, `H1 is supported` and its claim with what it lacks if it is undecided."""
    return [sentence(finding) for finding in findings(plan, effects)]


def _optional(title: str, blocks: Sequence[Block]) -> list[Section]:
    return [Section(title=title, blocks=tuple(blocks))] if blocks else []


def _summary(plan: Plan, records: Sequence[RunRecord], effects: Effects) -> tuple[str, ...]:
    words = [verdict_word(verdict, plan) for verdict in effects.verdicts]
    numbers = [f"{words.count(word)} {word}" for word in dict.fromkeys(words)]
    whole, results, planned = counts(plan, records)
    return (
        f"n = {whole} of {len(plan.seeds)} seeds",
        f"{results} of {planned} runs",
        distinct(records, lambda record: record.device or "device not recorded"),
        *([f"hypotheses: {', '.join(numbers)}"] if numbers else []),
    )


def _verdicts(plan: Plan, effects: Effects) -> tuple[Block, ...]:
    if not effects.verdicts:
        return ("The plan states no hypotheses.",)
    parts = [part for verdict in effects.verdicts for part in verdict.parts]
    return (Findings(rows=tuple(findings(plan, effects))), verdict_table(effects, plan), disagreement(parts))


def _cells(plan: Plan, effects: Effects, figures: Mapping[str, Picture]) -> tuple[Block, ...]:
    blocks: list[Block] = [cell_table(effects, plan), cost_statement(effects), *pictures(figures, "outcome")]
    if effects.standings:
        blocks.append(Section(title="Where cells stand", blocks=(standing_table(effects, plan),)))
    return tuple(blocks)


def _effects(plan: Plan, effects: Effects, figures: Mapping[str, Picture]) -> tuple[Block, ...]:
    family = [effect for effect in effects.effects if effect.in_family]
    confirmatory: list[Block] = [effect_tables(effects, plan)[0], *_beside(family)]
    if late := changed_family(plan, family):
        confirmatory.append(late)
    blocks: list[Block] = [Section(title="Confirmatory effects", blocks=tuple(confirmatory))]
    blocks += pictures(figures, "effects")
    if effects.attribution:
        table = attribution_table(effects)
        blocks.append(Section(title=table.title, blocks=(table, *_tagged(figures, "shares/attribution"))))
    return (*blocks, *pictures(figures, "factors"))


def _tuning(plan: Plan) -> list[Section]:
    if plan.tuned is None:
        return []
    table = tuning_table(plan, plan.tuned)
    return [Section(title=table.title, blocks=(table,))]


def _exploratory(plan: Plan, effects: Effects) -> tuple[Block, ...]:
    shown = [effect for effect in effects.effects if not effect.in_family]
    lacking = lacking_table(effects)
    also = (Section(title=lacking.title, blocks=(lacking,)),) if lacking.rows else ()
    return (effect_tables(effects, plan)[1], *_beside(shown), *also)


def _beside(shown: Sequence[Effect]) -> Iterator[Block]:
    """Yield what is said of effects below their table."""
    if shown:
        yield disagreement(shown)
    if lines := aliases(shown):
        yield Items(lines=lines)


def _regimes(plan: Plan, effects: Effects, figures: Mapping[str, Picture]) -> list[Section]:
    sections = []
    for regime in plan.regimes:
        blocks = [
            Section(
                title=profile.name,
                blocks=(
                    Items(lines=profile_sentences(profile, effects, plan)),
                    profile_table(profile, effects, plan),
                    *_tagged(figures, f"over {regime}/{profile.name}"),
                ),
            )
            for profile in effects.profiles
            if profile.regime == regime
        ]
        sections += _optional(f"Over {regime}", blocks)
    return sections


def _variance(effects: Effects, figures: Mapping[str, Picture]) -> list[Block]:
    return [variance_table(effects), *_tagged(figures, "shares/variance")] if effects.variance else []


def _power(plan: Plan, effects: Effects, figures: Mapping[str, Picture]) -> list[Block]:
    table = power_table(effects, plan)
    return [table, *pictures(figures, "power")] if table.rows else []


def _tagged(figures: Mapping[str, Picture], tag: str) -> list[Picture]:
    return [figures[tag]] if tag in figures else []
