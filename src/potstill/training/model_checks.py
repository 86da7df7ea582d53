"""Model checks: what a training refuses about its models before it spends anything."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

from potstill.models.causality import check_causal
from potstill.models.pretrained import check_tokens
from potstill.models.saving import check_can_be_saved
from potstill.targets import TargetStore
from potstill.teachers.live import LiveTeacher


def check_models(
    student: PreTrainedModel, tokenizer: Any, teachers: Sequence[LiveTeacher | TargetStore], given: Any
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
    check_tokens(tokenizer, _embeddings(student), "`model`")
    check_can_be_saved(student, "`model`")
    tokenizers = list(given) if isinstance(given, list | tuple) else [given] * len(teachers)
    for teacher, theirs in zip(teachers, tokenizers, strict=False):
        if isinstance(teacher, LiveTeacher):
            check_tokens(theirs, _embeddings(teacher.model), "`teacher`")


def _embeddings(model: Any) -> int:
    """The number of a model's embeddings; by its configuration where they cannot be seen."""
    module = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    return getattr(module, "num_embeddings", None) or model.config.get_text_config().vocab_size
