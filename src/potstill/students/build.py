"""Building a student as it is before any training."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from potstill.recipe.student import Checkpoint, Copy, PrunedLayers, Student
from potstill.students.prune import chosen_layers, prune_layers
from potstill.students.scratch import from_scratch
from potstill.teachers.huggingface import Prepared
from potstill.text.tokenizers import check_same_tokens
from potstill.words import UserError, first_line

SCRATCH_SEED = 0
"""Random weights are drawn once for a run, so that every seed of student and control starts from the same ones."""


def build(
    student: Student, teachers: dict[str, Prepared], tokenizer: Any, vocabulary: int
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The student in float32, and a few words on how it came to be.

    Args:
        student: what the recipe says.
        teachers: those that exist, by name.
        tokenizer: the run's.
        vocabulary: how many logits a student from nothing has.

    Raises:
        UserError: its tokenizer is not the run's, its layers do not exist, or its configuration is wrong.
    """
    if isinstance(student, Copy):
        whole = teachers[student.teacher].model(torch.float32).requires_grad_(True)
        return whole, {"start": "copy", "from": student.teacher}
    if isinstance(student, PrunedLayers):
        return _pruned(student, teachers[student.teacher])
    if isinstance(student, Checkpoint):
        return _checkpoint(student, tokenizer)
    model = from_scratch(student.config, "student.config", tokenizer, vocabulary, SCRATCH_SEED)
    return model, {"start": "scratch", "from": student.config["model_type"]}


def _pruned(student: PrunedLayers, teacher: Prepared) -> tuple[PreTrainedModel, dict[str, Any]]:
    whole = teacher.model(torch.float32)
    keep = chosen_layers(whole.config.num_hidden_layers, student.layers, student.rule)
    return prune_layers(whole, keep), {"start": "prune_layers", "from": teacher.name, "layers_kept": keep}


def _checkpoint(student: Checkpoint, ours: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    try:
        model = AutoModelForCausalLM.from_pretrained(student.model, revision=student.revision, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(student.model, revision=student.revision)
    except (OSError, ValueError) as error:
        raise UserError(f"`student.model`: {student.model!r} cannot be loaded: {first_line(error)}") from error
    check_same_tokens(ours, tokenizer, "the run's tokenizer", f"student {student.model}")
    return model, {"start": "checkpoint", "from": student.model}
