"""docs/architecture.md: its generated part is what the imports of today give."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "docs" / "architecture.py"
SPEC = importlib.util.spec_from_file_location("docs_architecture", SCRIPT)
architecture = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(architecture)


def test_the_committed_page_is_up_to_date():
    page = architecture.PAGE.read_text(encoding="utf-8")
    assert page == architecture.written(page), "run `make architecture`"
    assert page.count(architecture.BEGIN) == page.count(architecture.END) == 1


def test_an_old_page_is_written_anew():
    old = f"before\n{architecture.BEGIN}old\n{architecture.END}after\n"
    new = architecture.written(old)
    assert new.startswith("before\n")
    assert new.endswith("after\n")
    assert "old" not in new
    assert architecture.generated() in new


def test_the_picture_has_every_package():
    graph = architecture.imports()
    assert {"recipe", "losses", "training", "stages"} <= graph.keys()
    assert "losses" in graph["training"]
    assert "recipe" not in graph["losses"]


def test_an_arrow_that_a_longer_way_replaces_is_left_out():
    graph = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set()}
    assert architecture.reduced(graph) == {"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set()}


def test_no_package_of_a_circle_is_lost():
    graph = {"a": {"b"}, "b": {"a", "c"}, "c": set()}
    assert architecture.reduced(graph) == graph
