"""`student:` — what the student is before any training."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from potstill.recipe.section import Section, about_key


def _has_a_type(config: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(config.get("model_type"), str):
        raise about_key("model_type", "is missing; name an architecture of transformers, such as llama")
    return config


ModelConfig = Annotated[dict[str, Any], AfterValidator(_has_a_type)]
"""The fields of a transformers configuration, `model_type` among them."""


class PrunedLayers(Section):
    """The teacher with some of its layers left out; embeddings, norms and head are the teacher's own."""

    start: Literal["prune_layers"]
    """Where the student comes from: its teacher, some layers left out."""

    teacher: str = Field(alias="from")
    """The name of one of `teachers`."""

    layers: Annotated[int, Field(gt=0)] | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    """How many layers to keep, chosen by `rule`; or the list of them, counted from 0."""

    rule: Literal["spread", "ends"] = "spread"
    """`spread`: at even distances, the first and the last among them (one alone: the last). `ends`: dense at both ends,
    where layers matter most: of the layers that are kept, two fifths are the teacher's first, two its last, and the
    others lie at even distances in between; of fewer than five, as `spread`."""


class Checkpoint(Section):
    """A smaller model that exists already, of the teachers' tokenizer; its head may be padded to another size."""

    start: Literal["checkpoint"]
    """Where the student comes from: a model that exists already."""

    model: str
    """A name on the hub or a folder."""

    revision: str | None = None
    """A commit, tag or branch of the hub's repository."""


class Scratch(Section):
    """Random weights of a given shape."""

    start: Literal["scratch"]
    """Where the student comes from: nowhere; its weights are random."""

    config: ModelConfig
    """The fields of a transformers configuration, `model_type` among them; the vocabulary is the tokenizer's."""


Student = Annotated[PrunedLayers | Checkpoint | Scratch, Field(discriminator="start")]
