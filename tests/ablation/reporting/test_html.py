"""The page of a report: whole in one file, equal for equal records, and safe whatever the records say."""

import re
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from dynops.ablation.claims import Difference, Exceeds, Hypothesis
from dynops.ablation.designs import Levels
from dynops.ablation.plan import Plan
from dynops.ablation.reporting.document import Document, Finding, Findings, Items, Section, to_markdown
from dynops.ablation.reporting.page import to_page
from dynops.ablation.reporting.report import Report, report
from dynops.ablation.reporting.tables import Table
from dynops.ablation.store import write_study
from dynops.records import RunRecord

VOID = {"meta", "img", "br"}
PIXEL = Difference("kernel", "pixel", "constant")
PLAN = Plan(
    name="study",
    question="Does <i>x</i> & y gain?",
    factors=(Levels("kernel", ("constant", "pixel")), Levels("channels", ("every", "grouped"))),
    seeds=tuple(range(5)),
    family=(PIXEL,),
    hypotheses=(
        Hypothesis("H1", "A pixel gains.", (Exceeds((PIXEL,)),)),
        Hypothesis("H2", "Sharing gains <b>much</b>.", (Exceeds((Difference("channels", "grouped", "every"),)),)),
    ),
)


class Page(HTMLParser):
    """What a page holds: its elements, checked for their nesting, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def records() -> list[RunRecord]:
    generator = np.random.default_rng(0)
    runs = [
        RunRecord(
            levels=levels,
            seed=seed,
            status="complete",
            metrics={"accuracy": 0.7 + 0.1 * (levels["kernel"] == "pixel") + 0.01 * generator.normal()},
            parameters=100,
            macs=100,
            device="a CPU",
        )
        for seed in PLAN.seeds
        for levels in PLAN.cell_levels()
    ]
    lost = "TypeError: <class 'int'> takes no `**kwargs` [here](http://nowhere)"
    runs[-1] = RunRecord(levels=runs[-1].levels, seed=4, status="failed", reason=lost)
    return runs


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, PLAN, records())
    return report(folder)


@pytest.fixture(scope="module")
def page(made: Report) -> Page:
    return Page(made.html.read_text())


def test_page_needs_no_net_and_no_script(made: Report, page: Page) -> None:
    text = made.html.read_text()
    assert made.html == made.folder / "report.html"
    assert not page.all("script")
    assert not page.all("link")
    assert "url(" not in text
    assert "@import" not in text
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.all("img") if image["src"])
    assert {name for name, _ in page.elements if name in ("iframe", "object", "embed")} == set()


def test_page_holds_every_figure_with_words_for_it(made: Report, page: Page) -> None:
    held = [b64decode(str(image["src"]).partition(",")[2]) for image in page.all("img")]
    assert sorted(held) == sorted(path.read_bytes() for path in made.figures.values())
    assert all(len(image["alt"] or "") > 20 for image in page.all("img"))
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", made.html.read_text())
    assert len(captions) == len(held)
    assert all(captions)


def test_page_has_the_sections_and_numbers_of_the_markdown(made: Report, page: Page) -> None:
    words = " ".join(" ".join(page.words).split())
    for line in made.text.splitlines():
        if line.startswith("#"):
            assert line.lstrip("# ") in words
        if line.startswith("| ") and not line.startswith("| :--"):
            for cell in line[2:-2].split(" | "):
                assert cell.strip() in words
    anchors = {attributes["id"] for name, attributes in page.elements if name in ("h2", "h3")}
    links = [str(link["href"]) for link in page.all("a") if str(link["href"]).startswith("#")]
    assert len(links) == made.text.count("\n## ")
    assert {link[1:] for link in links} <= anchors


def test_verdicts_have_a_colour_and_the_word(made: Report) -> None:
    text = made.html.read_text()
    assert '<li class="supported"><span class="badge supported">supported</span> <b>H1</b><p>A pixel gains.</p>' in text
    assert '<span class="badge differs">differs</span>' in text
    assert "<li>hypotheses: 1 supported, 1 " in text
    for word in ("supported", "refuted", "undecided", "differs", "equivalent"):
        assert f".{word} {{" in text


def test_page_is_read_in_light_and_dark_on_phones_and_on_paper(made: Report, page: Page) -> None:
    text = made.html.read_text()
    assert "@media (prefers-color-scheme: dark)" in text
    assert "@media print" in text
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    scrolling = [attributes for attributes in page.all("div") if attributes.get("class") == "scroll"]
    assert len(scrolling) == len(page.all("table"))
    assert all(attributes["aria-label"] and attributes["tabindex"] == "0" for attributes in scrolling)


def test_exploratory_effects_are_folded(made: Report) -> None:
    text = made.html.read_text()
    assert text.count("<details>") == 1
    folded = text[text.index("<details>") : text.index("</details>")]
    assert "Exploratory effects, unadjusted" in folded
    assert "Confirmatory effects" not in folded


def test_what_records_and_plans_say_is_text_and_no_markup(made: Report, page: Page) -> None:
    text = made.html.read_text()
    assert "Does &lt;i&gt;x&lt;/i&gt; &amp; y gain?" in text
    assert "Sharing gains &lt;b&gt;much&lt;/b&gt;." in text
    lost = "<code>TypeError: &lt;class &#x27;int&#x27;&gt; takes no &#x27;**kwargs&#x27; [here](http://nowhere)</code>"
    assert lost in text
    assert "`TypeError: <class 'int'> takes no '**kwargs' [here](http://nowhere)`" in made.text
    assert not page.all("i")


def test_equal_records_give_an_equal_page(made: Report, tmp_path: Path) -> None:
    write_study(tmp_path, PLAN, records())
    assert report(tmp_path).html.read_bytes() == made.html.read_bytes()


def test_a_document_is_written_in_both_forms(tmp_path: Path) -> None:
    table = Table(
        title="t", columns=("a", "verdict"), sides="lr", rows=(("x|<y>", "undecided (exploratory)"),), note="N."
    )
    finding = Finding(name="H", verdict="refuted (exploratory)", claim="C.", lacks="L.")
    inner = Section(title="Inner", blocks=(Items(lines=("**bold** and `a*b*`", "[here](http://x.y/#z)")), table))
    empty = Table(title="e", columns=("a",), sides="l", rows=())
    section = Section(title="Outer & more", blocks=("Text.", Findings(rows=(finding,)), inner, empty), folded=True)
    document = Document(title="T", question="Q?", summary=("n = 1", "a CPU"), sections=(section,))
    assert to_markdown(document) == (
        "# T\n\nQ?\n\nn = 1 · a CPU\n\n## Outer & more\n\nText.\n\n- **H is refuted (exploratory)**: C. L.\n\n"
        "### Inner\n\n- **bold** and `a*b*`\n- [here](http://x.y/#z)\n\n"
        "| a | verdict |\n| :-- | --: |\n| x\\|<y> | undecided (exploratory) |\n\nN.\n\nNone.\n"
    )
    text = to_page(document, tmp_path)
    Page(text)
    for part in (
        '<details>\n<summary><h2 id="outer-more">Outer &amp; more</h2></summary>',
        '<h3 id="inner">Inner</h3>',
        "<li><strong>bold</strong> and <code>a*b*</code></li>",
        '<a href="http://x.y/#z">here</a>',
        "<td>x|&lt;y&gt;</td>",
        '<td class="r"><span class="badge undecided">undecided (exploratory)</span></td>',
        '<span class="badge refuted">refuted (exploratory)</span> <b>H</b><p>C.</p><p class="lacks">L.</p>',
        "<p>None.</p>",
    ):
        assert part in text
