"""Section: the base class of every part of a recipe."""

import difflib
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, model_validator
from pydantic_core import PydanticCustomError

from potstill.recipe.secret_names import ADVICE, find_secret, holds_secret, is_secret

MOST_LETTERS = 64
TAKEN = re.compile(r"(.*\.(json|jsonl|partial)|.*\.|(con|prn|aux|nul|com\d|lpt\d)(\..*)?)$", flags=re.IGNORECASE)
"""Names of potstill's own files, and names that no file may have on Windows."""


def _is_free(name: str) -> str:
    if TAKEN.match(name):
        raise ValueError(f"{name!r} is, or may become, the name of another file or folder; choose another name")
    return name


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=MOST_LETTERS), AfterValidator(_is_free)]
"""A name that the user chooses. It becomes the name of a file or folder."""


MOST_AT_ONCE = 2**20
"""Tokens that a model reads or writes at once: no model can do more."""
Length = Annotated[int, Field(gt=1, le=MOST_AT_ONCE)]
"""A number of tokens that a model reads at once."""
NewTokens = Annotated[int, Field(gt=0, le=MOST_AT_ONCE)]
"""A number of tokens that a model writes."""
WritingEngine = Literal["auto", "transformers", "vllm"]
"""What lets models write."""
Importance = Annotated[float, Field(gt=0, le=1e6)]
"""A weight in a sum or a mean."""
Temperature = Annotated[float, Field(ge=1e-3, le=1e3)]
"""A temperature whose square and inverse are numbers that float32 can hold beside logits."""


class Section(BaseModel):
    """A part of a recipe. It is immutable, refuses unknown keys and values of another type (`"3"` and `true` are no
    numbers), and the docstring under a field is its help in editors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, strict=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _every_key_known(cls, data: Any) -> Any:
        # Pydantic refuses unknown keys too, but only the section can list its own keys.
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for key, value in data.items() if isinstance(data, dict) else ():
            if is_secret(value) or (key not in known and holds_secret(str(key), value)):
                raise about_key(key, ADVICE)
            if key not in known:
                raise about_key(key, f"unknown key; {_hint(str(key), known)}")
        return {key: whole(value) for key, value in data.items()} if isinstance(data, dict) else data


def about_key(key: Any, message: str) -> PydanticCustomError:
    """An error about one key of the section that is validated."""
    return PydanticCustomError("about_key", "{message}", {"key": str(key), "message": message})


def whole(value: Any) -> Any:
    """A number such as 1e6, which YAML reads as a fraction, as the whole number that it is."""
    exact = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return int(value) if exact else value


def without_secrets(given: Any) -> Any:
    """Refuse fields of another library that are secrets."""
    if (key := find_secret(given)) is not None:
        raise about_key(key, ADVICE)
    return given


ForeignFields = Annotated[dict[str, Any], BeforeValidator(without_secrets)]
"""Fields of another library, under its own names. None of them may be a secret."""


def discriminated_by(*keys: str) -> Discriminator:
    """A discriminator for a union of sections: the first of these keys that a section has is its tag, `<key>`."""

    def kind(value: Any) -> str | None:
        has = vars(value) if isinstance(value, Section) else value if isinstance(value, dict) else ()
        return next((f"<{key}>" for key in keys if key in has), None)

    named = ", ".join(f"`{key}`" for key in keys[:-1])
    return Discriminator(kind, "no_kind", f"must have one of the keys {named} or `{keys[-1]}`")


def _hint(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
    return f"did you mean `{near[0]}`?" if near else f"the keys here are {', '.join(known)}"
