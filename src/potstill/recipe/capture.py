"""`capture:` — run the teacher once and keep its distributions. Without this section, the teacher runs beside the
student."""

from typing import Literal

from pydantic import Field, model_validator

from potstill.recipe.section import Section

SETTINGS = {
    "top_k": {"k", "bits"},
    "sample": {"samples"},
    "hybrid": {"k", "samples", "bits"},
    "hidden": set[str](),
    "spans": {"store"},
}
"""The keys that each value of `keep` uses."""


class Capture(Section):
    """Run the teacher once and keep a part of each of its distributions on disk."""

    keep: Literal["top_k", "sample", "hybrid", "hidden", "spans"] = "top_k"
    """What is kept of a distribution. `top_k` (default): the most likely tokens and the exact mass of the others.
    `sample`: tokens drawn from the distribution, unbiased and smallest. `hybrid`: the exact most likely tokens and a
    sample of the others. `hidden`: hidden states, exact and largest. `spans`: of a teacher of another tokenizer, what
    the loss `alm` needs, for students of every tokenizer."""

    k: int = Field(64, gt=0)
    """The number of most likely tokens that are kept of each distribution (`top_k` and `hybrid`). Default: 64."""

    samples: int = Field(32, gt=0)
    """The number of tokens drawn from each distribution (`sample`, and the tail of `hybrid`). Default: 32."""

    bits: Literal[8, 16, 32] = 8
    """The bits of each kept log-probability: 8 (default), 16 or 32."""

    store: str | None = None
    """The folder `capture` of another run, which captured the spans of these documents, conversations or questions for
    a student of another tokenizer (`spans`). They are taken from there, and the teacher is not run. Default: it is
    run."""

    batch_size: int = Field(16, gt=0)
    """The number of sequences that the teacher reads at the same time. Default: 16."""

    def keeps(self, key: str) -> bool:
        """Whether `keep` uses this key."""
        return key in SETTINGS[self.keep]

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> "Capture":
        for name in ("k", "samples", "bits", "store"):
            if not self.keeps(name) and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` has no effect with `keep: {self.keep}`; remove it")
        return self
