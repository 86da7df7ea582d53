"""Triples: a prompt to continue, the keyword that a right continuation contains, and a reference."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from potstill.data.sources import rows
from potstill.errors import UserError
from potstill.files.named_files import named_path
from potstill.recipe.continuations import ContinuationFile, ContinuationSet
from potstill.recipe.corpus import PathFiles

COLUMNS = ("prompt", "keyword", "reference")


@dataclass(frozen=True)
class Continuation:
    """One prompt, with the keyword and the reference that its continuations are compared with."""

    id: str
    prompt: str
    keyword: str
    reference: str
    """A right sentence, without the prompt if it began with it: models write only the rest."""


def continuations_file(given: ContinuationSet | ContinuationFile, key: str) -> Path:
    """The file that a recipe names.

    Raises:
        UserError: there is no such file.
    """
    if isinstance(given, ContinuationSet):
        return Path(str(resources.files("potstill.metrics.continuations") / "prompt_sets" / f"{given.set}.jsonl"))
    file = named_path(given.path)
    if not file.is_file():
        raise UserError(
            f"`{key}.path`: there is no file {given.path!r} (seen from {Path.cwd()}); name one with prompts"
        )
    return file


def read_continuations(given: ContinuationSet | ContinuationFile, key: str) -> list[Continuation]:
    """The continuations that a recipe names, in the order of their file.

    Args:
        given: the recipe's section.
        key: its key, for messages.

    Raises:
        UserError: a column is missing or blank, a prompt occurs twice, or there are fewer than three prompts.
    """
    file = continuations_file(given, key)
    found: dict[str, Continuation] = {}
    for number, row in enumerate(rows(PathFiles(path=str(file)), key)):
        if number == given.count:
            break
        one = _continuation(row.columns, f"`{key}`: {row.where}", number)
        if one.prompt in found:
            raise UserError(f"`{key}`: {row.where} repeats the prompt of {found[one.prompt].id}; remove one of them")
        found[one.prompt] = one
    if len(found) < 3:
        raise UserError(f"`{key}`: {file} has {len(found)} prompts, and an interval needs at least 3; add some")
    return list(found.values())


def _continuation(columns: Mapping[str, Any], where: str, number: int) -> Continuation:
    prompt, keyword, reference = (_text(columns, name, where) for name in COLUMNS)
    if reference.startswith(prompt) and reference != prompt:
        reference = reference.removeprefix(prompt).strip()
    return Continuation(str(columns.get("id") or number + 1), prompt, keyword, reference)


def _text(columns: Mapping[str, Any], name: str, where: str) -> str:
    value = columns.get(name)
    # A number of a .jsonl file is a keyword, too.
    text = str(value).strip() if isinstance(value, str | int) else ""
    if not text:
        raise UserError(f"{where} has no text in `{name}`; a row needs {', '.join(f'`{one}`' for one in COLUMNS)}")
    return text
