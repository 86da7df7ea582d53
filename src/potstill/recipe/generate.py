"""`generate:` — answers to learn from that a teacher writes. Left out: the reference solutions are learned from."""

from typing import Literal

from pydantic import Field, model_validator

from potstill.recipe.section import Name, Section, about_key


class Generate(Section):
    """Which teacher answers the training questions, how, and which of its answers are learned from."""

    by: Name
    """The teacher that answers, by its name in `teachers` or `pretrain`."""

    strategy: Name = "base"
    """The strategy under whose teacher's prompt it answers."""

    max_new_tokens: int = Field(256, gt=0)
    """The most tokens of an answer, its end included. An answer that does not end by then is not learned from, because
    the student would learn to stop in the middle."""

    samples: int = Field(1, gt=0)
    """Answers to each question. What is said twice to one question is kept once."""

    temperature: float = Field(0.0, ge=0)
    """0: the most probable token each time (greedy). Above: tokens are drawn, from a distribution that much flatter."""

    top_p: float = Field(1.0, gt=0, le=1)
    """Tokens are drawn from the most probable ones that together have this probability."""

    top_k: int | None = Field(None, gt=0)
    """Tokens are drawn from this many of the most probable ones. Default: from all."""

    seed: int = Field(0, ge=0, lt=2**32)
    """What the draws begin with."""

    keep: Literal["all", "correct"] = "all"
    """Which answers are learned from: `all`, or those whose final answer is that of the reference solution."""

    batch_size: int = Field(16, gt=0)
    """Answers that are written at a time. Another one draws other answers."""

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> "Generate":
        if self.temperature > 0:
            return self
        if self.samples > 1:
            raise about_key(
                "samples",
                f"is {self.samples}, and with `temperature: 0` all answers to a question are the same; raise the "
                "temperature, or ask once",
            )
        for name in ("top_p", "top_k", "seed"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise about_key(name, "has no effect with `temperature: 0`, which draws nothing; remove it")
        return self
