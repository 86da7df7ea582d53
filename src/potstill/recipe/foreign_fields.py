"""Fields that a recipe hands on to a dataclass of another library, checked before that library sees them."""

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from potstill.errors import UserError


def check_fields(given: Mapping[str, Any], kind: Any, key: str) -> None:
    """Refuse what a dataclass does not have, and what it would take, keep and trip over hours later.

    Args:
        given: values by the names of fields.
        kind: the dataclass.
        key: where the values stand in the recipe, for messages.

    Raises:
        UserError: a field is unknown, or its value is of another type.
    """
    known, types = [field.name for field in fields(kind) if field.init], get_type_hints(kind)
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"see the documentation of {kind.__name__}"
            raise UserError(f"`{key}.{name}` is no field of {kind.__name__}; {hint}")
        try:
            TypeAdapter(types[name]).validate_python(value)
        except ValidationError as error:
            raise UserError(f"`{key}.{name}` is {value!r}: {error.errors()[0]['msg'].lower()}") from None
