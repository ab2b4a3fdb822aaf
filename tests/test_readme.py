"""What the README shows works as it stands there."""

import re
from pathlib import Path

from dynops import cards

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_the_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert {"involution", "shared_depthwise", "twin", "hybrid", "layer"} <= set(names)


def test_every_file_that_is_linked_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [link for link in links if not link.startswith("http") and not (ROOT / link).exists()]
    assert links
    assert not missing


def test_table_of_the_family_is_the_one_that_the_code_makes() -> None:
    (shown,) = re.findall(r"<!-- family: .*? -->\n\n(.*?)\n\n<!-- /family -->", README, flags=re.DOTALL)
    assert shown == cards.markdown(cards.family())
