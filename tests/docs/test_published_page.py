"""docs/published.md: its plans are what the code of today says of the described machines."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "published.py"
SPEC = importlib.util.spec_from_file_location("docs_published", SCRIPT)
published = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(published)


def committed():
    """The lines of the page that are generated, without the head of their table."""
    page = published.PAGE.read_text(encoding="utf-8")
    assert page.count(published.BEGIN) == page.count(published.END) == 1
    table = page.partition(published.BEGIN)[2].partition(published.END)[0]
    assert table.startswith(published.HEAD)
    return table.removeprefix(published.HEAD).splitlines(keepends=True)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", published.RECIPES)
def test_the_plans_of_the_committed_page_are_those_of_today(monkeypatch, recipe):
    # What is installed or cached here is a matter of this machine.
    monkeypatch.setattr("potstill.planning.memory.is_installed", lambda: False)
    monkeypatch.setattr("potstill.planning.models._of_hub", lambda *given, **how: None)
    told = [line for line in committed() if line.startswith(f"| `{recipe}` |")]
    assert told == published.rows(recipe), "run `make published`"


def test_the_committed_page_has_every_recipe_on_every_machine_and_no_other():
    names = [line.split("`")[1] for line in committed()]
    assert names == [name for name in published.RECIPES for _ in published.MACHINES]


def test_an_old_page_is_written_anew(monkeypatch):
    monkeypatch.setattr(published, "generated", lambda: "new\n")
    old = f"before\n{published.BEGIN}old\n{published.END}after\n"
    assert published.written(old) == f"before\n{published.BEGIN}new\n{published.END}after\n"
