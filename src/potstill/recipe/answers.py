"""`answers:` — how every model is asked the held-out questions: one prompt, one limit, and the most probable answer."""

from pydantic import Field

from potstill.recipe.section import Name, Section


class Answers(Section):
    """What every model is given alike, so that their answers can be compared; all of them answer greedily."""

    strategy: Name = "base"
    """The strategy whose student's prompt every model is asked with, teachers too."""

    teachers: bool = True
    """Whether teachers answer as well: without them, nobody sees how far the students could still come."""

    max_new_tokens: int = Field(default=256, gt=0)
    """The most tokens of an answer, its end included. The results say how many answers reached it."""

    batch_size: int = Field(default=16, gt=0)
    """Answers that are written at a time."""
