"""`answers:` — how every model answers the held-out questions."""

from pydantic import Field

from potstill.recipe.section import Name, NewTokens, Section


class Answers(Section):
    """How every model answers the held-out questions. All of them answer greedily, with one prompt and one limit, so
    that their answers can be compared."""

    strategy: Name = "base"
    """The strategy whose student prompt every model gets, teachers too. Default: `base`."""

    teachers: bool = True
    """Whether the teachers answer too. Their figures show how far the students are behind. Default: true."""

    max_new_tokens: NewTokens = 256
    """The greatest length of an answer in tokens, its end token included. The results count the answers that reached
    it. Default: 256."""

    batch_size: int = Field(default=32, gt=0)
    """The number of answers that are written at the same time. A greater one is faster and needs more memory. After a
    stop, up to 8 times that number are written again. Default: 32."""
