"""Overrides: apply `--set section.key=value` to a recipe that is read but not checked yet."""

from copy import copy
from typing import Any

from potstill.errors import UserError


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
            raise UserError(f"--set {key}: the list has no item `{here}`; it has {len(node)} items, counted from 0")
        if not isinstance(node, dict | list):
            raise UserError(f"--set {key}: `{here.rpartition('.')[0]}` is a plain value and has no keys")
        place: Any = int(part) if isinstance(node, list) else part
        if not parts:
            node[place] = value
        else:
            # A copy, because YAML's `*alias` may share this value with other places, which must not change.
            node[place] = {} if isinstance(node, dict) and node.get(place) is None else copy(node[place])
        node = node[place]


def _next_part(node: Any, parts: list[str]) -> str:
    """The next part of a key. It is longer than one word if a name contains dots itself: `teachers.qwen2.5.weight`."""
    joined = (".".join(parts[:count]) for count in range(len(parts), 1, -1))
    return next((name for name in joined if isinstance(node, dict) and name in node), parts[0])
