"""Model checks: what a training refuses about its models before it spends anything."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

from potstill.models.causality import check_causal
from potstill.models.pretrained import check_tokens
from potstill.models.saving import check_can_be_saved
from potstill.models.size import embeddings_of
from potstill.targets import TargetStore
from potstill.teachers.beside import TeacherBeside
from potstill.teachers.captured_spans import CapturedSpans


def check_models(
    student: PreTrainedModel, tokenizer: Any, teachers: Sequence[TeacherBeside | TargetStore], given: Any
) -> None:
    """Refuse a student that is not a causal language model or could not be saved, and tokens without an embedding.

    A live teacher proves itself a causal language model when it is made.

    Args:
        student: the student, with an adapter or not.
        tokenizer: the student's tokenizer, or None.
        teachers: the live teachers and stores.
        given: the tokenizer of all teachers, or a list with one tokenizer for each, or None.

    Raises:
        UserError: naming the argument of :class:`DistilTrainer`.
    """
    check_causal(student, "`model`")
    check_tokens(tokenizer, embeddings_of(student), "`model`")
    check_can_be_saved(student, "`model`")
    tokenizers = list(given) if isinstance(given, list | tuple) else [given] * len(teachers)
    for teacher, theirs in zip(teachers, tokenizers, strict=False):
        if not isinstance(teacher, TargetStore | CapturedSpans):
            check_tokens(theirs, teacher.embeddings, "`teacher`")
