"""Across tokenizers: what a recipe may not ask of a teacher whose tokenizer is not the student's."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from potstill.recipe.candidates import Candidate
    from potstill.recipe.conversations import Conversations
    from potstill.recipe.losses import GivenLoss
    from potstill.recipe.recipe import Recipe

CROSSING = ("alm", "uld", "shared_tokens")
"""The kinds of loss for a teacher of another tokenizer than the student's."""

SCORING = ("vllm", "sglang")
"""The servers that tell the likeliest tokens of any text, by `api`."""

WHOLE = ("uld", "shared_tokens")
"""Those of them that compare whole distributions."""


def crossing_loss(recipe: "Recipe") -> str | None:
    """The kind of a loss for a teacher of another tokenizer than the student's; None if the recipe has no such loss."""
    return next((loss.kind for loss in _losses(recipe) if loss.kind in CROSSING), None)


def remedy_without_crossing_loss(recipe: "Recipe") -> str:
    """What to do about models of different tokenizers, where a recipe has no loss for them: the end of a message."""
    if recipe.pretrain:
        return "use models of one tokenizer, or remove `pretrain` and use the loss `alm`"
    needed = ["a `tokenizer` of the student's own"] if recipe.tokenizer is None else []
    if getattr(recipe.student, "teacher", None) is not None:
        needed.append("a student that is not made from a teacher")
    return f"use models of one tokenizer, or the loss `alm`{' with ' if needed else ''}{' and '.join(needed)}"


def _losses(recipe: "Recipe") -> "list[GivenLoss]":
    return [loss for name in recipe.variants for loss in recipe.losses_of(name)]


def reads_other_tokens(recipe: "Recipe", candidate: "Candidate") -> bool:
    """Whether a candidate is a teacher that need not have the run's tokenizer."""
    return candidate.role == "teacher" and crossing_loss(recipe) is not None


def keeps_documents(recipe: "Recipe") -> bool:
    """Whether a recipe captures spans of texts, for which the teacher reads whole documents."""
    return keeps_spans(recipe) and not recipe.asks and not recipe.chats


def keeps_spans(recipe: "Recipe") -> bool:
    """Whether a recipe captures spans, which are of the teacher's own tokens."""
    return recipe.capture is not None and recipe.capture.keep == "spans"


def complaints_across_tokenizers(recipe: "Recipe") -> Iterator[str]:
    """A sentence about each setting that a teacher of another tokenizer cannot have."""
    crossing = crossing_loss(recipe)
    if crossing is None:
        if keeps_spans(recipe):
            yield (
                "`capture.keep: spans` is read by the loss `alm` alone, which none of the losses is; use "
                "`keep: top_k`, or `alm` with a teacher of another tokenizer"
            )
        return
    what = f"`{crossing}` is for a teacher of another tokenizer"
    for loss in _losses(recipe):
        if loss.kind not in (*CROSSING, "cross_entropy"):
            yield (
                f"{what}, and `{loss.kind}` compares token by token, which needs one tokenizer; use `alm` in the place "
                f"of `{loss.kind}`, or remove `{crossing}`"
            )
    if recipe.tokenizer is None:
        yield (
            f"{what}, and without `tokenizer` the student has its teacher's; give the student one, as in "
            "`tokenizer: {vocab_size: 4096}`, or use `forward_kl`"
        )
    if recipe.pretrain:
        name = next(iter(recipe.pretrain))
        yield f"{what}, and `pretrain.{name}` is trained with the student's own; use `forward_kl`"
    if recipe.distil.mix == "logits" and len(recipe.all_teachers) > 1:
        yield f"{what}, and of several such teachers the losses are averaged; remove `distil.mix: logits`"
    if recipe.asks:
        yield from _of_questions(recipe, what)
    elif recipe.chats:
        yield from _of_conversations(recipe, what)
    yield from _of_other_sections(recipe, what)


def _of_capture(recipe: "Recipe", what: str) -> Iterator[str]:
    if recipe.capture is None:
        return
    if not keeps_spans(recipe):
        yield (
            f"{what}, and `capture.keep: {recipe.capture.keep}` keeps one tokenizer's tokens; use `keep: spans`, or "
            "remove `capture`"
        )
    elif any(map(recipe.on_policy_of, recipe.variants)):
        yield (
            "`capture.keep: spans` knows no text that the student writes (`on_policy`); remove `capture`, and the "
            "teacher runs beside the student"
        )
    elif whole := next((loss.kind for loss in _losses(recipe) if loss.kind in WHOLE), None):
        yield (
            f"`capture.keep: spans` is read by the loss `alm` alone, and `{whole}` needs whole distributions; use "
            "`alm`, or remove `capture`"
        )


def _of_conversations(recipe: "Recipe", what: str) -> Iterator[str]:
    what = f"{what}, which reads conversations by its tokenizer's own chat template"
    corpus = cast("Conversations", recipe.corpus)
    if corpus.teacher is not None:
        yield f"{what} and as the student does; remove `corpus.teacher`"
    if recipe.uses_strategies:
        yield f"{what}, and `strategies` are for one tokenizer; remove them"
    if recipe.generate is not None:
        yield f"{what}, and `generate` writes turns for one tokenizer; remove it, or give turns that it has written"
    if corpus.layout == "packed":
        yield f"{what}, one in each sample; use `corpus.layout: padded`"
    if corpus.too_long not in ("drop", "cut_right"):
        yield f"{what}, and `corpus.too_long: {corpus.too_long}` cuts tokens of the student; use `drop` or `cut_right`"


def _of_questions(recipe: "Recipe", what: str) -> Iterator[str]:
    for name in recipe.variants:
        if not recipe.sample_set_of(name).own:
            yield (
                f"{what}, which is compared where both read the same text, and `experiments.{name}.targets: "
                f"another_question` has none; remove the experiment {name!r}"
            )


def _of_other_sections(recipe: "Recipe", what: str) -> Iterator[str]:
    yield from _of_capture(recipe, what)
    for given in map(recipe.on_policy_of, recipe.variants):
        if given is not None and given.losses is not None:
            yield (
                f"{what}, and `{given.losses[0].kind}` of `on_policy.losses` needs the teacher's probability of each "
                "token of the student; remove `on_policy.losses`, and what the student writes has the other losses"
            )
    for name, teacher in recipe.teachers.items():
        api = getattr(teacher, "api", "potstill")
        if api != "potstill" and not (keeps_spans(recipe) and api in SCORING):
            yield (
                f"{what}, which must tell its whole distributions, and `teachers.{name}` tells the likeliest tokens; "
                "let it run beside the student, or behind `potstill serve` (`api: potstill`), or capture spans "
                "(`capture: {keep: spans}`) from vLLM or SGLang"
            )
    if (teacher_of_student := getattr(recipe.student, "teacher", None)) is not None:
        yield (
            f"{what}, and `student.from: {teacher_of_student}` gives the student the teacher's tokens; begin from "
            "scratch (`start: scratch`), or name a checkpoint (`start: checkpoint`)"
        )
