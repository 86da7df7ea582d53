"""The modules of the benchmarks import one another without a circle."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


def imported(tree: ast.AST) -> set[str]:
    """The benchmark modules that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.startswith("benchmarks.")}


def test_no_two_benchmarks_need_each_other() -> None:
    graph = {f"benchmarks.{file.stem}": imported(ast.parse(file.read_text())) for file in FOLDER.glob("*.py")}
    assert "benchmarks.captured" in graph["benchmarks.steps"]
    TopologicalSorter(graph).prepare()


def test_a_circle_is_found() -> None:
    modules = {"benchmarks.a": "from benchmarks import b", "benchmarks.b": "from benchmarks.a import title"}
    with pytest.raises(CycleError):
        TopologicalSorter({name: imported(ast.parse(text)) for name, text in modules.items()}).prepare()
