"""Rehearse: the whole pipeline of a recipe with small models and short texts, before it is run."""

from collections.abc import Sequence
from pathlib import Path

from potstill.recipe import load_recipe
from potstill.rehearsal.rehearse import rehearse


def rehearsed(recipe: str, folder: Path | None, overrides: Sequence[str]) -> bool:
    """Rehearse a recipe. Returns whether everything that can be proven here is proven.

    Raises:
        UserError: the recipe or its data is wrong, or its pipeline stops with an error.
    """
    return bool(rehearse(load_recipe(recipe, overrides), folder or Path("rehearsals") / Path(recipe).stem)["passed"])
