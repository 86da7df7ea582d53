"""Fields that a recipe passes to a dataclass of another library. They are checked before that library reads them."""

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from potstill.errors import UserError

EXACT = ConfigDict(strict=True, allow_inf_nan=False)
"""No quoted numbers, no `true` for 1, no numbers that are not finite."""


def check_fields(given: Mapping[str, Any], kind: Any, key: str) -> None:
    """Refuse fields that a dataclass does not have, and values of a wrong type, which the dataclass itself would
    accept.

    Args:
        given: values by the names of fields.
        kind: the dataclass.
        key: the key of the values in the recipe, for messages.

    Raises:
        UserError: a field is unknown, or its value has a wrong type.
    """
    known, types = [field.name for field in fields(kind) if field.init], get_type_hints(kind)
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"see the documentation of {kind.__name__}"
            raise UserError(f"`{key}.{name}` is no field of {kind.__name__}; {hint}")
        try:
            TypeAdapter(types[name], config=EXACT).validate_python(value)
        except ValidationError as error:
            raise UserError(f"`{key}.{name}` is {value!r}: {error.errors()[0]['msg'].lower()}") from None
