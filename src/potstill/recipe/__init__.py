"""The recipe: its schema, one file a section, and how it is read."""

from potstill.recipe.load import load_recipe, read_recipe_text, recipe_text, shipped_recipes
from potstill.recipe.recipe import Recipe

__all__ = ["Recipe", "load_recipe", "read_recipe_text", "recipe_text", "shipped_recipes"]
