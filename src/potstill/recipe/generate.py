"""`generate:` — a teacher writes the training answers. Without this section, the training answers are those of the
data."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from potstill.recipe.section import Name, NewTokens, Section, WritingEngine, about_key


def _is_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression ({error}); correct it") from None
    return text


class Generate(Section):
    """A teacher answers the training questions, or writes turns of the training conversations, and its answers become
    the training answers."""

    by: Name
    """The teacher that answers: its name in `teachers` or `pretrain`."""

    strategy: Name = "base"
    """The strategy whose teacher prompt it gets. Default: `base`."""

    turns: Literal["last", "each"] | None = None
    """Which of the assistant's turns it writes (conversations only): the `last` (default), or `each`, one after the
    other, in a conversation that has its own earlier turns. A turn that calls a tool stays as it is in the data,
    because the tool's result that follows belongs to it."""

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

    keep: Literal["all", "correct", "nearest"] = "all"
    """Which answers are kept, of those that `matching`, `shortest` and `longest` allow. `all` (default); `correct`:
    those whose final answer is that of the reference solution; or `nearest`: of the `samples`, the one that is most
    like the reference by ROUGE-L."""

    matching: Annotated[str, AfterValidator(_is_pattern)] | None = None
    """Keep only answers in which this regular expression is found. Default: no such rule."""

    shortest: int = Field(1, gt=0)
    """Keep only answers of at least this number of tokens, without the end token. Default: 1."""

    longest: int | None = Field(None, gt=0)
    """Keep only answers of at most this number of tokens. Default: `max_new_tokens` decides."""

    batch_size: int = Field(32, gt=0)
    """The number of answers that are written at the same time. A greater one is faster and needs more memory. After a
    stop, up to 8 times that number are written again. Default: 32."""

    engine: WritingEngine = "auto"
    """What writes. `transformers`: transformers, in batches in which the next answer takes a finished one's place.
    `vllm`: vLLM, which must be installed. `auto` (default): vLLM on a CUDA GPU where it is installed and knows the
    model, and else transformers. Their answers differ where two tokens are almost equally probable, and their draws
    differ."""

    @model_validator(mode="after")
    def _lengths_are_possible(self) -> "Generate":
        longest = self.max_new_tokens - 1 if self.longest is None else self.longest
        if self.longest is not None and self.longest >= self.max_new_tokens:
            raise about_key("longest", f"has no effect, because `max_new_tokens` is {self.max_new_tokens}; remove it")
        if self.shortest > max(longest, 1):
            raise about_key("shortest", f"is {self.shortest}, but no answer has more than {longest} tokens; lower it")
        return self

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> "Generate":
        if self.keep == "nearest" and self.samples == 1:
            raise about_key("keep", "is `nearest`, but there is one answer to choose from; raise `samples`")
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
