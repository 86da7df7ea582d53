"""Overrides: apply `--set section.key=value` to a recipe that is read but not checked yet."""

import re
import types
from collections.abc import Callable
from copy import copy
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from potstill.errors import UserError
from potstill.recipe.secret_names import without_secret


def apply_override(raw: dict[str, Any], given: str, recipe: type[BaseModel], parse: Callable[[str, str], Any]) -> None:
    """Apply one `KEY=VALUE` to a recipe.

    `losses[0].weight` is `losses.0.weight`. A key that takes a list accepts its items without brackets: `seeds=0,1`.

    Args:
        raw: the recipe, as read from its file. It is changed.
        given: what the user wrote.
        recipe: the class that the recipe is checked with, which says which keys take a list.
        parse: reads YAML: the text, and its origin for messages.

    Raises:
        UserError: there is no key or no value, or the key cannot be set.
    """
    shown = f"--set {without_secret(given)!r}"
    key, equals, text = given.partition("=")
    key = re.sub(r"\[([^\[\]]*)\]", r".\1", key)
    if not equals or not all(key.split(".")):
        raise UserError(f"{shown}: write it as `section.key=value`")
    found = _types_at([recipe], key.split("."))
    takes_list, takes_text = any(_is_list(one) for one in found), any(one is str for one in found)
    if takes_list and not takes_text and _has_comma(text):
        text = f"[{text}]"
    override(raw, key, parse(text, shown))


def _types_at(kinds: list[Any], parts: list[str]) -> list[Any]:
    """The types that a key may have, without unions and annotations; empty where potstill does not know them."""
    plain = [one for kind in kinds for one in _branches(kind)]
    if not parts:
        return plain
    found = []
    for kind in plain:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            fields = kind.model_fields.items()
            found += _types_at([one.annotation for name, one in fields if (one.alias or name) == parts[0]], parts[1:])
        elif _is_list(kind):
            found += _types_at([*get_args(kind)], parts[1:])
        elif get_origin(kind) is dict:
            # A name may contain dots itself, so it may be any number of parts.
            for count in range(1, len(parts) + 1):
                found += _types_at([get_args(kind)[1]], parts[count:])
    return found


def _branches(kind: Any) -> list[Any]:
    if get_origin(kind) is Annotated:
        return _branches(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [one for branch in get_args(kind) for one in _branches(branch)]
    return [kind]


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is list


def _has_comma(text: str) -> bool:
    """Whether a text has a comma outside all brackets and quotes."""
    outside = re.sub(r"\"[^\"]*\"|'[^']*'", "", text)
    while (less := re.sub(r"\[[^\[\]{}]*\]|\{[^\[\]{}]*\}", "", outside)) != outside:
        outside = less
    return "," in outside


def override(raw: dict[str, Any], key: str, value: Any) -> None:
    """Set one dotted key. Missing sections are created, and list items are named by their index.

    Raises:
        UserError: the key continues after a plain value, or names a list item that does not exist.
    """
    node: Any = raw
    parts = key.split(".")
    while parts:
        part = _next_part(node, parts)
        del parts[: part.count(".") + 1]
        here = key.removesuffix("." + ".".join(parts)) if parts else key
        if isinstance(node, list) and not (part.isdecimal() and int(part) < len(node)):
            raise UserError(f"--set {key}: the list has no item `{here}`; it has {_items(len(node))}, counted from 0")
        if not isinstance(node, dict | list):
            raise UserError(f"--set {key}: `{here.rpartition('.')[0]}` is a plain value and has no keys")
        place: Any = int(part) if isinstance(node, list) else part
        if not parts:
            node[place] = value
        else:
            # A copy, because YAML's `*alias` may share this value with other places, which must not change.
            node[place] = {} if isinstance(node, dict) and node.get(place) is None else copy(node[place])
        node = node[place]


def _items(count: int) -> str:
    return f"{count} item{'s' * (count != 1)}"


def _next_part(node: Any, parts: list[str]) -> str:
    """The next part of a key. It is longer than one word if a name contains dots itself: `teachers.qwen2.5.weight`."""
    joined = (".".join(parts[:count]) for count in range(len(parts), 1, -1))
    return next((name for name in joined if isinstance(node, dict) and name in node), parts[0])
