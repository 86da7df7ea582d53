"""`distil.on_policy:` — the student writes a share of its samples itself, and its teachers read them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from potstill.recipe.corpus import Corpus
from potstill.recipe.losses import WrittenLoss
from potstill.recipe.section import MOST_AT_ONCE, NewTokens, Section, Temperature, WritingEngine

if TYPE_CHECKING:
    from potstill.recipe.recipe import Recipe


class Sampling(Section):
    """How the student chooses the tokens that it writes."""

    temperature: Temperature = 1.0
    """A temperature below 1 makes the student write more probable tokens. It changes what is written, and not the loss:
    losses have their own temperatures. Default: 1."""

    top_p: float = Field(1.0, gt=0, le=1)
    """Draw only from the most probable tokens that together have this probability. Default: 1, which is all."""

    top_k: int | None = Field(None, gt=0)
    """Draw only from this number of most probable tokens. Default: all."""


class OnPolicy(Section):
    """Samples that the student writes as it is at that step. Divergences are learned from them, and cross-entropy never
    is."""

    share: float = Field(0.5, ge=0, le=1)
    """The share of each optimizer step's samples that the student writes; the others are those of the corpus. 0: none.
    1: all. Default: 0.5."""

    from_step: int = Field(0, ge=0)
    """The number of steps before the first written sample. A student that is still far from its teacher should first
    learn from the corpus. Default: 0."""

    max_new_tokens: NewTokens = 256
    """The greatest length of a written answer in tokens, its end token included. Default: 256."""

    samples: int = Field(1, gt=0, le=1024)
    """The number of answers to each prompt. They share the work of reading it. Default: 1."""

    sampling: Sampling = Field(default_factory=lambda: Sampling.model_validate({}))
    """How tokens are drawn."""

    refresh_every: int = Field(1, gt=0)
    """Write new samples in every step (1, the default), or in each `refresh_every`-th, and train on the same ones in
    the steps between. Writing then takes that much less time, and the samples are those of an older student."""

    unfinished: Literal["learn", "drop"] = "learn"
    """What becomes of answers without an end within `max_new_tokens`: they are learned like others (default), or
    dropped. The log counts them in both cases."""

    beginning: int = Field(32, gt=0, le=MOST_AT_ONCE)
    """Of samples of text, which have no question: the number of tokens that the student continues. Default: 32."""

    losses: list[WrittenLoss] | None = Field(None, min_length=1)
    """The losses of written samples. Default: the divergences of the other samples."""

    batch_size: int = Field(32, gt=0)
    """The number of answers that are written at the same time. A greater one is faster and needs more memory.
    Default: 32."""

    engine: WritingEngine = "auto"
    """What writes. `transformers`: transformers, in batches in which the next answer takes a finished one's place.
    `vllm`: vLLM, which must be installed. `auto` (default): vLLM on a CUDA GPU where it is installed and knows the
    model, and else transformers. vLLM has its own copy of the student, which gets the student's weights before it
    writes. Their answers differ where two tokens are almost equally probable, and their draws
    differ."""

    preflight: Literal["refuse", "warn", "off"] = "refuse"
    """Before the first written sample is learned, measure in about a minute whether on-policy training can work here:
    how far the student is from its teachers on what it writes, and whether it ends its answers. `refuse` (default): do
    not train where the figures speak against it. `warn`: only say so. `off`: do not measure."""


def without_rollouts(recipe: "Recipe") -> Iterator[str]:
    """A sentence about each reason why a student of a recipe cannot write, or why what it writes has no effect."""
    keys = dict.fromkeys(recipe.variants, "distil.on_policy")
    keys |= {name: f"experiments.{name}.on_policy" for name, given in recipe.experiments.items() if given.on_policy}
    for name, key in keys.items():
        if (given := recipe.on_policy_of(name)) is not None:
            yield from _impossible(recipe, given, key)
            yield from _in_vain(recipe, given, key, [loss.kind for loss in recipe.losses_of(name)])


def _impossible(recipe: "Recipe", given: OnPolicy, key: str) -> Iterator[str]:
    corpus = recipe.corpus
    if isinstance(corpus, Corpus) and given.beginning >= corpus.sequence_length:
        yield (
            f"`{key}.beginning` is {given.beginning:,}, and `corpus.sequence_length` is {corpus.sequence_length:,}, so "
            "nothing of a sample is left to continue; lower it"
        )
    if recipe.distil.reduction == "sequence":
        yield (
            f"`{key}` needs `distil.reduction: token`, because the answers that a student writes differ in length; "
            "remove `reduction`"
        )
    if recipe.distributed.strategy == "fsdp2":
        yield (
            f"`{key}` lets the student write, which needs its whole weights on each rank, and `distributed.strategy: "
            "fsdp2` splits them; use `ddp`"
        )


def _in_vain(recipe: "Recipe", given: OnPolicy, key: str, kinds: list[str]) -> Iterator[str]:
    if recipe.capture is not None and given.share == 1 and given.from_step == 0 and len(recipe.variants) == 1:
        yield (
            f"`capture` has no effect beside `{key}.share: 1`: all samples are written by the student, and no store of "
            "targets knows them; remove `capture`, or lower the share"
        )
    steps = recipe.distil.training.get("max_steps", -1)
    if isinstance(steps, int) and 0 < steps <= given.from_step:
        yield (
            f"`{key}.from_step` is {given.from_step:,}, and `distil.training.max_steps` is {steps:,}, so the student "
            "would write nothing; lower it, or remove `on_policy`"
        )
    if given.losses is None and set(kinds) <= {"cross_entropy", "hidden_match"}:
        yield f"`{key}.losses` is missing, and the student's other losses have no divergence; give one"
    clipped = any(loss.kind == "policy_gradient" and "clip" in loss.model_fields_set for loss in given.losses or [])
    if clipped and given.refresh_every == 1:
        yield (
            f"`{key}.losses`: `clip` has no effect without `refresh_every`, because new samples are those of the "
            "student as it is; remove it"
        )
