"""Load a recipe: find the file, parse the YAML, apply overrides, check it. Write a recipe as YAML."""

import difflib
import io
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from potstill.errors import UserError, first_line
from potstill.files.atomic import read_json, sha256
from potstill.limits import LimitError, limited
from potstill.recipe.error_messages import complaint
from potstill.recipe.overrides import apply_override
from potstill.recipe.plain_values import check_plain
from potstill.recipe.recipe import Recipe
from potstill.recipe.section import Section
from potstill.recipe.step import SAVED_AS, SAVED_DIGEST

MOST_BYTES = 2**18
"""The size of a recipe file. The largest that ships has 5,000 bytes."""
PARSING_SECONDS, PARSING_MEMORY = 10, 2**30

S = TypeVar("S", bound=Section)


def shipped_recipes() -> dict[str, str]:
    """The text of each recipe that ships with potstill, by name."""
    folder = resources.files("potstill.recipe") / "shipped"
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".yaml")),
        key=lambda file: file.name.removesuffix(".yaml"),
    )
    return {file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8") for file in files}


def read_recipe_text(name_or_path: str) -> str:
    """The text of a recipe file, or of the shipped recipe with this name.

    Raises:
        UserError: neither exists, or the file cannot be read.
    """
    path = Path(name_or_path)
    if path.is_file():
        try:
            if (size := path.stat().st_size) > MOST_BYTES:
                raise UserError(
                    f"recipe {name_or_path}: has {size:,} bytes, and a recipe may have {MOST_BYTES:,}; put data into "
                    "files of their own"
                )
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"recipe {name_or_path}: is not UTF-8 (byte {error.start}); convert it first") from None
        except OSError as error:
            raise UserError(
                f"recipe {name_or_path}: cannot be read ({(error.strerror or str(error)).lower()})"
            ) from None
    shipped = shipped_recipes()
    if name_or_path in shipped:
        return shipped[name_or_path]
    if path.is_dir():
        raise UserError(f"{name_or_path!r} is a folder; name the recipe file in it")
    near = difflib.get_close_matches(name_or_path, shipped, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the shipped recipes are {', '.join(shipped)}"
    raise UserError(f"there is no recipe file {name_or_path!r} and no shipped recipe with this name; {hint}")


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply the overrides and check it.

    Args:
        name_or_path: a YAML file, or the name of a shipped recipe.
        overrides: `dotted.key=value`, the value in YAML; list items by their index (`seeds.0=1` or `seeds[0]=1`).

    Raises:
        UserError: the file, the YAML, a key or a value is wrong.
    """
    raw = _parse(read_recipe_text(name_or_path), f"recipe {name_or_path}")
    if not isinstance(raw, dict):
        raise UserError(f"recipe {name_or_path}: has no sections; `potstill init FILE` writes a recipe to start from")
    return _checked(raw, Recipe, overrides, f"recipe {name_or_path}")


def section_of(kind: type[S], overrides: Sequence[str], origin: str) -> S:
    """A section that overrides alone give, such as `--set temperature=0.7`.

    Args:
        kind: the section.
        overrides: as for :func:`load_recipe`.
        origin: names the section in messages.

    Raises:
        UserError: a key or a value is wrong.
    """
    return _checked({}, kind, overrides, origin)


def checked_recipe(content: dict[str, Any], origin: str) -> Recipe:
    """A recipe from its content.

    Args:
        content: as :meth:`Recipe.model_dump` gives it.
        origin: names it in messages.

    Raises:
        UserError: a key or a value is wrong.
    """
    return _checked(content, Recipe, (), origin)


def _checked(raw: dict[str, Any], kind: type[S], overrides: Sequence[str], origin: str) -> S:
    for given in overrides:
        apply_override(raw, given, kind, _parse)
    check_plain(raw, origin)
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{origin}: {complaint(error, raw)}") from None


def recipe_text(recipe: Recipe, *, defaults: bool = True) -> str:
    """A recipe as YAML, with or without the values that are defaults. `load_recipe` reads the same recipe from both."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    content = recipe.model_dump(mode="json", by_alias=True, exclude_defaults=not defaults)
    # The library writes these three characters unchanged, but reads them as line breaks. Escaped, they survive.
    yaml.allow_unicode = not any(odd in json.dumps(content, ensure_ascii=False) for odd in "\x85\u2028\u2029")
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()


def _parse(text: str, origin: str) -> Any:
    try:
        # YAML 1.2, in which 1e-4 is a number and `no` is a word.
        with limited(PARSING_SECONDS, PARSING_MEMORY):
            return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{origin}{where}: not valid YAML: {problem or first_line(error)}") from None
    except (RecursionError, LimitError):
        raise UserError(f"{origin}: is nested too deep, or is too large, to be read; write it more simply") from None
    except Exception as error:  # a date that does not exist, a number with 5,000 digits, a tag without a value
        raise UserError(f"{origin}: not valid YAML: {first_line(error)}") from error


def is_as_saved(run_folder: Path) -> bool:
    """Whether the recipe in a run folder is as the run wrote it."""
    written = run_folder / SAVED_DIGEST
    return not written.is_file() or written.read_bytes() == sha256(run_folder / SAVED_AS).encode()


def saved_recipe(run_folder: Path) -> Recipe:
    """The recipe that a run folder was last used with.

    Raises:
        UserError: the folder is not a run folder, its recipe was changed, or another version of potstill wrote it.
    """
    saved = read_json(run_folder / SAVED_AS)
    if saved is None:
        raise UserError(f"{run_folder} is no run folder; `potstill run RECIPE` makes one under runs/")
    if not is_as_saved(run_folder):
        raise UserError(
            f"{run_folder / SAVED_AS} is not as the run wrote it; run the recipe again, which writes it anew"
        )
    try:
        return Recipe.model_validate(saved)
    except ValidationError:
        raise UserError(
            f"{run_folder}: this version of potstill cannot read its {SAVED_AS}; run its recipe again"
        ) from None
