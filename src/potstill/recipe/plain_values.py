"""Plain values: what a recipe may hold before its sections are checked. YAML can hold more: itself, dates, bytes."""

import math
from typing import Any

from potstill.errors import UserError

DEEPEST = 64
MOST_VALUES = 100_000
LARGEST = 2**63
"""Whole numbers beyond this fit nowhere."""


def check_plain(raw: Any, origin: str) -> None:
    """Refuse what cannot be a value of a recipe, and whatever is too large or too deep to be walked through.

    Args:
        raw: a recipe, as YAML gives it. Aliases may share values with each other.
        origin: names the recipe in messages.

    Raises:
        UserError: names the key.
    """
    # Written without recursion: a value may contain itself.
    left: list[tuple[str, Any, int]] = [("", raw, 0)]
    seen = 0
    while left:
        key, value, depth = left.pop()
        seen += 1
        if depth > DEEPEST:
            shown = ".".join(key.split(".")[:3])
            raise UserError(f"{origin}: `{shown}` is nested more than {DEEPEST} deep; does an alias contain itself?")
        if seen > MOST_VALUES:
            raise UserError(
                f"{origin}: has more than {MOST_VALUES:,} values; name files instead, and use fewer aliases"
            )
        if (wrong := _wrong(value)) is not None:
            raise UserError(f"{origin}: `{key}`: {wrong}" if key else f"{origin}: {wrong}")
        parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        left += [(f"{key}.{name}" if key else str(name), one, depth + 1) for name, one in parts]


def _wrong(value: Any) -> str | None:
    match value:
        case None | bool() | list():
            return None
        case dict():
            return next((wrong for name in value if (wrong := _wrong_key(name)) is not None), None)
        case str():
            return _wrong_text(value)
        case int():
            return f"must be less than {LARGEST:,}" if abs(value) >= LARGEST else None
        case float():
            return None if math.isfinite(value) else f"must be a finite number, not {value}"
    return f"must be text, a number, a list or a section, not {value!r}; write text in quotes"


def _wrong_key(name: Any) -> str | None:
    if not isinstance(name, str | int) or isinstance(name, bool):
        return f"the key {name!r} must be text; write it in quotes"
    wrong = _wrong_text(name) if isinstance(name, str) else None
    return None if wrong is None else f"the key {name!r} {wrong}"


def _wrong_text(text: str) -> str | None:
    """What is wrong with a text that no file can hold."""
    if "\0" in text:
        return "has a character NUL, which no name and no text may have; remove it"
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        return "has half a character (a lone surrogate), which no file can hold; remove it"
    return None
