"""`generate:` — a teacher writes the training answers. Without this section, the training answers are the reference
solutions."""

from typing import Literal

from pydantic import Field, model_validator

from potstill.recipe.section import Name, NewTokens, Section, about_key


class Generate(Section):
    """A teacher answers the training questions, and its answers become the training answers."""

    by: Name
    """The teacher that answers: its name in `teachers` or `pretrain`."""

    strategy: Name = "base"
    """The strategy whose teacher prompt it gets. Default: `base`."""

    max_new_tokens: NewTokens = 256
    """The greatest length of an answer in tokens, its end token included. Longer answers are not used, because the
    student would learn to stop in the middle. Default: 256."""

    samples: int = Field(1, gt=0, le=10_000)
    """The number of answers to each question. Equal answers to one question are kept once. Default: 1."""

    temperature: float = Field(0.0, ge=0)
    """0 (default): always the most probable token (greedy). Above 0: tokens are drawn, and a higher temperature makes
    the distribution flatter."""

    top_p: float = Field(1.0, gt=0, le=1)
    """Draw only from the most probable tokens that together have this probability. Default: 1, which is all."""

    top_k: int | None = Field(None, gt=0)
    """Draw only from this number of most probable tokens. Default: all."""

    seed: int = Field(0, ge=0, lt=2**32)
    """The seed of the draws. Default: 0."""

    keep: Literal["all", "correct"] = "all"
    """Which answers are kept. `all` (default), or `correct`: those whose final answer is that of the reference
    solution."""

    batch_size: int = Field(32, gt=0)
    """The number of answers that are written at the same time. A greater one is faster and needs more memory. After a
    stop, up to 8 times that number are written again. Default: 32."""

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> "Generate":
        if self.temperature > 0:
            return self
        if self.samples > 1:
            raise about_key(
                "samples",
                f"is {self.samples}, but with `temperature: 0` all answers to a question are the same; raise "
                "`temperature`, or remove `samples`",
            )
        for name in ("top_p", "top_k", "seed"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise about_key(name, "has no effect with `temperature: 0`, because nothing is drawn; remove it")
        return self
