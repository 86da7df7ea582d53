"""Error messages: the errors that pydantic found in a recipe, as one sentence with the key and the expected value."""

from typing import Any

from pydantic import ValidationError

WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a section with keys",
    "model_type": "a section with keys",
    "model_attributes_type": "a section with keys",
    "literal_error": "{expected}",
    "union_tag_invalid": "one of {expected_tags}",
    "greater_than": "greater than {gt:,.10g}",
    "greater_than_equal": "at least {ge:,.10g}",
    "less_than": "less than {lt:,.10g}",
    "less_than_equal": "at most {le:,.10g}",
}
"""The expected value, by the type of pydantic's error."""


def complaint(error: ValidationError, raw: Any) -> str:
    """The message about the first error. If a value fits none of several types, the message lists all of them."""
    found = [(_key(one, raw), one) for one in error.errors(include_url=False)]
    # In a union, the user meant the branch whose error lies deepest in the value.
    key = max((key for key, _ in found if key.startswith(found[0][0])), key=lambda key: key.count("."))
    same = [one for other, one in found if other == key]
    same = [one for one in same if not _of_type(one)] or same
    wanted = [WANTED[one["type"]].format(**one.get("ctx", {})) for one in same if one["type"] in WANTED]
    told = f"must be {' or '.join(dict.fromkeys(wanted))}, not {_shown(same[0])}"
    message = told if wanted else _message(same[0])
    others = {other for other, _ in found} - {key, found[0][0]}
    more = f" ({len(others)} more)" if others else ""
    return _on_one_line(f"`{key}`: {message}{more}" if key else f"{message}{more}")


def _on_one_line(text: str) -> str:
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _of_type(error: Any) -> bool:
    """Whether the value has the wrong type or is an unknown word. An error about its range is more helpful."""
    return error["type"].endswith(("_type", "_parsing", "_from_float", "literal_error"))


def _message(error: Any) -> str:
    match error["type"]:
        case "missing" | "union_tag_not_found":
            return "is missing; `potstill schema` shows its values"
        case "too_short":
            return "is empty; give at least one"
        case "string_too_long":
            return f"has {len(error['input'])} characters; give at most {error['ctx']['max_length']}"
        case "string_pattern_mismatch":
            return "may contain only letters, digits, `.`, `_` and `-`, and must begin with a letter or digit"
    return error["msg"].removeprefix("Value error, ")


def _key(error: Any, raw: Any) -> str:
    """The dotted key of an error: its location without the branches of unions, which are not keys."""
    parts, node = [], raw
    for part in error["loc"]:
        if (isinstance(node, dict) and part in node) or (isinstance(node, list) and isinstance(part, int)):
            parts.append(str(part))
            node = node[part]
    if error["type"] == "missing":
        parts.append(str(error["loc"][-1]))
    elif error["type"] == "about_key":
        parts.append(error["ctx"]["key"])
    elif error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        parts.append(error["ctx"]["discriminator"].strip("'"))
    return ".".join(parts)


def _shown(error: Any) -> str:
    """The wrong value, as the recipe's author wrote it."""
    if error["type"] == "union_tag_invalid":
        return repr(error["ctx"]["tag"])
    match error["input"]:
        case None:
            return "nothing"
        case bool() as value:
            return str(value).lower()
        case dict():
            return "a section"
        case list():
            return "a list"
        case value:
            return repr(value)
