"""Recipe verbs: what the command line says of recipes and their data, without a run."""

import json

import typer

from potstill.cli.options import DataNames, Fetch, From, NewFile, RecipeName, RehearsalFolder, Set
from potstill.errors import UserError

app = typer.Typer()
PANEL = "Recipes"


@app.command(rich_help_panel=PANEL)
def recipes() -> None:
    """List the shipped recipes."""
    from potstill.recipe import load_recipe, shipped_recipes

    width = max(map(len, shipped_recipes()))
    for name in shipped_recipes():
        print(f"{name:<{width}}  {load_recipe(name).about}")


@app.command(rich_help_panel=PANEL)
def init(file: NewFile, from_: From = "quickstart") -> None:
    """Write your own recipe: a copy of a shipped one with its comments."""
    from potstill.files.atomic import write_text
    from potstill.recipe import read_recipe_text

    if file.exists():
        raise UserError(f"{file} is there already; choose another name")
    try:
        write_text(file, read_recipe_text(from_))
    except OSError as error:
        raise UserError(
            f"{file} cannot be written ({(error.strerror or str(error)).lower()}); choose another place"
        ) from error
    print(f"{file} written; `potstill run {file}` runs it")


@app.command(rich_help_panel=PANEL)
def show(recipe: RecipeName, set_: Set = None) -> None:
    """Print a recipe with overrides and defaults filled in. A setting that `run` would refuse is an error here too."""
    from potstill.recipe import load_recipe, recipe_text

    loaded = load_recipe(recipe, set_ or [])
    print(recipe_text(loaded), end="", flush=True)
    from potstill.pipeline.runner import check_stages

    # The data of `evaluate` may lie on the hub, and a look at a recipe must not download it.
    check_stages(loaded, without=["evaluate"])


@app.command(rich_help_panel=PANEL)
def rehearse(recipe: RecipeName, folder: RehearsalFolder = None, set_: Set = None) -> None:
    """Run the whole pipeline of a recipe with small models and short texts, in minutes and without a network."""
    from potstill.cli.rehearse import rehearsed

    if not rehearsed(recipe, folder, set_ or []):
        raise SystemExit(1)


@app.command(rich_help_panel=PANEL)
def data(names: DataNames = None, fetch: Fetch = False) -> None:
    """List the public data that recipes name, check whether its files on this machine are the published ones, and fetch
    what is missing (`--fetch`)."""
    from potstill.cli import data as listing

    print(listing.fetched(names or []) if fetch else listing.described(names or []))


@app.command(rich_help_panel=PANEL)
def schema() -> None:
    """Print the JSON Schema of recipes, which editors use for completion."""
    from potstill.recipe import Recipe

    print(json.dumps(Recipe.model_json_schema(by_alias=True), indent=2))
