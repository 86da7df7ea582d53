"""Names in docstrings become links to what the page shows, and code where it shows nothing of that name."""

import re
from pathlib import Path

import potstill

SOURCE = (Path(__file__).parents[3] / "docs" / "site" / "docstrings.py").read_text(encoding="utf-8")
PAGE = (Path(__file__).parents[3] / "docs" / "site" / "python.md").read_text(encoding="utf-8")


def test_the_page_shows_what_the_package_gives():
    shown = re.findall(r"^::: (\S+)$", PAGE, re.MULTILINE)
    homes = {f"{getattr(potstill, name).__module__}.{name}" for name in potstill.__all__}
    assert {*shown} == homes
    assert {*re.findall(r'": "(potstill\.\S+)"', SOURCE)} == homes
