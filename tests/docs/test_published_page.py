"""docs/published.md: its plans are what the code of today says of the described machines."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "published.py"
SPEC = importlib.util.spec_from_file_location("docs_published", SCRIPT)
published = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(published)


@pytest.mark.slow
def test_the_committed_page_is_up_to_date(monkeypatch):
    # What is installed or cached here is a matter of this machine.
    monkeypatch.setattr("potstill.planning.memory.is_installed", lambda: False)
    monkeypatch.setattr("potstill.planning.models._of_hub", lambda *given, **how: None)
    page = published.PAGE.read_text(encoding="utf-8")
    assert page == published.written(page), "run `make published`"


def test_an_old_page_is_written_anew(monkeypatch):
    monkeypatch.setattr(published, "generated", lambda: "new\n")
    old = f"before\n{published.BEGIN}old\n{published.END}after\n"
    assert published.written(old) == f"before\n{published.BEGIN}new\n{published.END}after\n"
