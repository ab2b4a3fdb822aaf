"""What the README shows works as it stands there."""

import re
from pathlib import Path

import pytest

from dynops import cards

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_runs(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})


def test_every_file_that_is_linked_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [link for link in links if not link.startswith("http") and not (ROOT / link).exists()]
    assert links
    assert not missing


def test_table_of_the_family_is_the_one_that_the_code_makes() -> None:
    (shown,) = re.findall(r"<!-- family: .*? -->\n\n(.*?)\n\n<!-- /family -->", README, flags=re.DOTALL)
    assert shown == cards.markdown(cards.family())
