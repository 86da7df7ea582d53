"""`evaluate:` — what is measured, on what, and how sure it is."""

from pydantic import Field

from potstill.recipe.section import Section


class Evaluate(Section):
    """Teacher, student before, student after and control, side by side on held-out documents."""

    documents: int | None = Field(default=None, gt=0)
    """At most so many held-out documents, in the order of their hashes. Default: all."""

    batch_size: int = Field(default=16, gt=0)
    """Sequences a model reads at a time."""

    confidence: float = Field(default=0.95, gt=0, lt=1)
    """The share of repetitions in which an interval covers the truth."""

    resamples: int = Field(default=2000, ge=100)
    """Bootstrap resamples of the documents."""
