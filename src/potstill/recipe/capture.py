"""`capture:` — run the teacher once and keep what it says. Left out: the teacher runs beside the student."""

from typing import Literal

from pydantic import Field, model_validator

from potstill.recipe.section import Section

SETTINGS = {"top_k": {"k", "bits"}, "sample": {"samples"}, "hybrid": {"k", "samples", "bits"}, "hidden": set()}
"""What each way of keeping has to choose."""


class Capture(Section):
    """What is kept of each of the teacher's distributions."""

    keep: Literal["top_k", "sample", "hybrid", "hidden"] = "top_k"
    """`top_k`: the most likely tokens and the exact mass of the rest. `sample`: tokens drawn from the distribution,
    unbiased and smallest. `hybrid`: an exact head and a sampled tail. `hidden`: hidden states, exact and largest."""

    k: int = Field(64, gt=0)
    """Tokens kept of each distribution."""

    samples: int = Field(32, gt=0)
    """Draws from each distribution (`sample`, and the tail of `hybrid`)."""

    bits: Literal[8, 16, 32] = 8
    """Bits of a kept log-probability."""

    batch_size: int = Field(16, gt=0)
    """Sequences the teacher reads at a time."""

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> "Capture":
        for name in ("k", "samples", "bits"):
            if name not in SETTINGS[self.keep] and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` has no effect where `keep` is {self.keep}; remove it")
        return self
