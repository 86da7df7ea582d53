"""Recipe keys: the reference of every key, from the docstrings that the recipe's own classes have."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from potstill.recipe import Recipe

Schema = Mapping[str, Any]
HEAD = """\
# Keys of a recipe

Every key, with its type, its default and what it means. A key that has several forms has a list for each, and a form
that several keys have stands under the first of them. `potstill show RECIPE` prints a recipe with its defaults filled
in. The [guide](../docs/guide/index.md) says which keys to use for what.
"""


def recipe_keys() -> str:
    """The page."""
    whole = Recipe.model_json_schema(by_alias=True)
    forms: Schema = whole["$defs"]
    lines, shown = [HEAD], set[str]()
    for key, field in whole["properties"].items():
        lines += [f"\n## `{key}`\n", _paragraphs(field.get("description", "")), f"\n{_facts(key, field, whole)}\n"]
        for name in _named(field, forms):
            if name not in shown:
                lines += [f"\n### {_words(name)}\n", *_section(forms[name])]
                shown.add(name)
    return "\n".join(lines).rstrip() + "\n"


def _named(field: Schema, forms: Schema) -> list[str]:
    """The forms that a field and its own fields can have, in order."""
    found: dict[str, None] = {}

    def visit(schema: Any) -> None:
        for name in _references(schema):
            if name not in found:
                found[name] = None
                visit(forms[name])

    visit(field)
    return list(found)


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if key == "$ref":
                yield value.rpartition("/")[2]
            elif key != "discriminator":
                yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def _section(form: Schema) -> Iterator[str]:
    yield _paragraphs(form.get("description", "")) + "\n"
    for key, field in form.get("properties", {}).items():
        text = " ".join(field.get("description", "").split())
        yield f"- **`{key}`** {_facts(key, field, form)}" + (f" — {text}" if text else "")


def _facts(key: str, field: Schema, form: Schema) -> str:
    """The type of a key, and whether it is required or what its default is, where its docstring does not say so."""
    kind = _kind(field)
    if key in form.get("required", []):
        default = "required"
    elif "efault" in field.get("description", ""):
        default = ""
    else:
        value = field.get("default")
        default = f"default `{value}`" if isinstance(value, int | float | str) and value != "" else "optional"
    return ", ".join(one for one in (f"*{kind}*" if kind else "", default) if one)


def _kind(field: Schema) -> str:
    """The type of a field, in words."""
    if "$ref" in field:
        return f"[{_words(field['$ref'].rpartition('/')[2])}](#{_anchor(field['$ref'].rpartition('/')[2])})"
    if "enum" in field or "const" in field:
        return " or ".join(f"`{one}`" for one in field.get("enum", [field.get("const")]))
    for several in ("anyOf", "oneOf"):
        if several in field:
            each = dict.fromkeys(_kind(one) for one in field[several] if one.get("type") != "null")
            return " or ".join(one for one in each if one)
    if field.get("type") == "array":
        return f"list of {_kind(field.get('items', {})) or 'values'}"
    if field.get("type") == "object":
        inner = {_kind(one) for one in field.get("patternProperties", {}).values()} or {
            _kind(field["additionalProperties"]) if isinstance(field.get("additionalProperties"), Mapping) else ""
        }
        return f"names, each with {inner.pop()}" if any(inner) else "keys and values"
    names = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    return names.get(field.get("type", ""), "") + _limits(field)


def _limits(field: Schema) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return "".join(f", {sign} {_number(field[name])}" for name, sign in signs.items() if name in field)


def _number(limit: float) -> str:
    return f"{limit:,.0f}" if limit == int(limit) else f"{limit:g}"


def _words(name: str) -> str:
    """`PrunedLayers` as “Pruned layers”."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).capitalize()


def _anchor(name: str) -> str:
    return _words(name).lower().replace(" ", "-")


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(one.split()) for one in text.split("\n\n"))
