"""A toy run of two teachers, each of which teaches the rows of its own: text of three kinds in two files."""

import json
from pathlib import Path
from typing import Any

from potstill.recipe import Recipe
from tiny import documents, llama, save_model, toy_recipe

KINDS = {"numbers": ("maths",), "talk": ("chat",), "news": ()}
"""The kinds of rows, and their teachers."""


def save_text(folder: Path) -> list[dict[str, Any]]:
    """Sources: `numbers.jsonl`, and `more.jsonl` with a column for the kind of each row."""
    rows = {
        "numbers.jsonl": [{"text": text, "kind": "numbers"} for text in documents(50, seed=1)],
        "more.jsonl": [
            {"text": f"[{kind}] {text}", "kind": kind} for kind in ("talk", "news") for text in documents(40, seed=2)
        ],
    }
    for name, listed in rows.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in listed), encoding="utf-8")
    return [{"path": str(folder / name)} for name in rows]


def by_row(folder: Path, *more: str, sources: list[dict[str, Any]] | None = None) -> Recipe:
    """The recipe; `more` overrides it further. `maths` is chosen by its source, and `chat` by a column."""
    sources = save_text(folder) if sources is None else sources
    teachers: dict[str, Any] = {}
    for seed, name in enumerate(("maths", "chat")):
        path = folder / name
        if not path.exists():
            save_model(llama(seed, layers=4), path)
        teachers[name] = {"model": str(path)}
    teachers["maths"]["when"] = {"source": str(folder / "numbers.jsonl")}
    teachers["chat"]["when"] = {"column": "kind", "equals": "talk"}
    # The toy's own override of `teachers` comes first.
    settings = {
        "teachers": teachers,
        "student": {"start": "prune_layers", "from": "maths", "layers": 2},
        "corpus.sources": sources,
        "corpus.held_out": 0.2,
        "distil.losses": [{"kind": "forward_kl", "weight": 0.5}, {"kind": "cross_entropy", "weight": 0.5}],
    }
    return toy_recipe(folder, *(f"{key}={json.dumps(value)}" for key, value in settings.items()), *more)
