"""Ready: the teachers and the tokenizer, as the stages before have left them in the run folder."""

from typing import Any

from transformers import AutoTokenizer

from potstill.losses.vocabulary import shared_vocabulary
from potstill.pipeline import Work
from potstill.teachers.huggingface import Prepared


def existing_teachers(work: Work) -> list[Prepared]:
    """The teachers that nothing has to be trained for."""
    return [Prepared.load(work.run.path("teachers") / name) for name in work.recipe.teachers]


def teachers(work: Work) -> list[Prepared]:
    """Every teacher of the recipe: those that existed, and then those that were trained here."""
    trained = [Prepared.load(work.run.path("pretrain") / name / "model", name) for name in work.recipe.pretrain]
    return existing_teachers(work) + trained


def tokenizer(work: Work) -> Any:
    """The run's own tokenizer, or else the first teacher's."""
    if work.recipe.tokenizer is not None:
        return AutoTokenizer.from_pretrained(work.run.path("tokenizer") / "tokenizer")
    return existing_teachers(work)[0].tokenizer()


def vocabulary(work: Work) -> int:
    """How many logits a model has that is made here: as many as the first teacher, or as the run's own tokenizer."""
    if work.recipe.tokenizer is not None:
        return len(tokenizer(work))
    return existing_teachers(work)[0].config().vocab_size


def compared_vocabulary(work: Work) -> int | None:
    """The number of ids that student and teachers are compared on: their tokens; None: all that their heads have.

    A student that is made of its teacher, or in its likeness, has its head, padding included. A checkpoint and several
    teachers may be padded to other sizes; the stages before have proven that they have the same tokens.
    """
    rows = [teacher.config().get_text_config().vocab_size for teacher in existing_teachers(work)]
    rows += [vocabulary(work)] if work.recipe.pretrain else []
    if work.recipe.student.start != "checkpoint" and len({*rows, vocabulary(work)}) == 1:
        return None
    ours = tokenizer(work)
    return min(*rows, shared_vocabulary(ours, ours))
