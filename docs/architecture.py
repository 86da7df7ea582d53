"""Writes the generated part of docs/architecture.md: the order of the packages, and a picture of their imports.

`make architecture` runs it. The order is `TIERS` in tests/test_architecture.py; the arrows are the real imports.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "potstill"
PAGE = ROOT / "docs" / "architecture.md"
LAW = ROOT / "tests" / "test_architecture.py"
BEGIN, END = "<!-- begin: written by `make architecture` -->\n", "<!-- end -->\n"

Graph = Mapping[str, set[str]]


def packages() -> list[str]:
    """The folders of src/potstill that hold modules."""
    return sorted({file.relative_to(SOURCE).parts[0] for file in SOURCE.glob("*/**/*.py")})


def imports() -> Graph:
    """For each package, the other packages that its modules import; imports for type checkers do not count."""
    names = packages()
    found: dict[str, set[str]] = {name: set() for name in names}
    for name in names:
        for file in (SOURCE / name).rglob("*.py"):
            parts = [module.split(".") for module in _imported(ast.parse(file.read_text(encoding="utf-8")))]
            found[name] |= {part[1] for part in parts if part[0] == "potstill" and len(part) > 1}
    return {name: (used & set(names)) - {name} for name, used in found.items()}


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from _imported(node)


def reduced(graph: Graph) -> Graph:
    """The graph without each arrow that a longer way through other arrows replaces."""
    left = {node: set(used) for node, used in graph.items()}
    for node in sorted(graph):
        for used in sorted(graph[node]):
            left[node].remove(used)
            if used not in _reachable(left, node):
                left[node].add(used)
    return left


def _reachable(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    todo = [start]
    while todo:
        new = graph[todo.pop()] - found
        found |= new
        todo += new
    return found


def mermaid(graph: Graph) -> str:
    """The graph as Mermaid text, importers above."""
    arrows = [f"    {node} --> {used}\n" for node in sorted(graph) for used in sorted(graph[node])]
    return "```mermaid\nflowchart TD\n" + "".join(arrows) + "```\n"


def order() -> str:
    """The order of imports as the test of the architecture has it, one line a tier."""
    (tiers,) = (
        ast.literal_eval(node.value)
        for node in ast.parse(LAW.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TIERS"
    )
    lines = (f"{number}. {', '.join(f'`{name}`' for name in sorted(tier))}\n" for number, tier in enumerate(tiers, 1))
    return "".join(lines)


def generated() -> str:
    """What stands between the marks of the page."""
    return f"{order()}\n{mermaid(reduced(imports()))}"


def written(page: str) -> str:
    """The page with its generated part written anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{generated()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
