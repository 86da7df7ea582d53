"""The recipe: its schema, with one file for each section, and the functions that read it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from potstill.recipe.load import load_recipe, read_recipe_text, recipe_text, shipped_recipes
    from potstill.recipe.recipe import Recipe

__all__ = ["Recipe", "load_recipe", "read_recipe_text", "recipe_text", "shipped_recipes"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: `potstill --help` needs only `Step` and must not wait for pydantic.
    if name not in __all__:
        raise AttributeError(f"module 'potstill.recipe' has no attribute {name!r}")
    from potstill.recipe import load, recipe

    return getattr(recipe if name == "Recipe" else load, name)
