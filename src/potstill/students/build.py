"""Build: makes a student as it is before any training."""

from dataclasses import asdict
from typing import Any

import torch
from transformers import PreTrainedModel

from potstill.data.tokenizers import check_same_tokens
from potstill.models.from_scratch import from_scratch
from potstill.models.pretrained import ModelSource, check_tokens
from potstill.recipe.student import Checkpoint, Copy, PrunedLayers, PrunedWidth, Student
from potstill.students.carry_vocabulary import carry_over, keep_first_tokens
from potstill.students.importance import Batches, block_influence, loss_increases, most_important
from potstill.students.prune_layers import chosen_layers, prune_layers
from potstill.students.prune_width import prune_width, pruned_widths
from potstill.students.prune_width_families import family_of
from potstill.teachers.prepared import PreparedTeacher

SCRATCH_SEED = 0
"""Random weights are drawn once per run, so that student and control start from the same weights at every seed."""


def build(
    student: Student, teachers: dict[str, PreparedTeacher], tokenizer: Any, vocabulary: int, samples: Batches = ()
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Build the student in float32; returns it with a summary of how it was made.

    Args:
        student: the recipe's section.
        teachers: the prepared teachers, by name.
        tokenizer: the run's tokenizer.
        vocabulary: the number of logits of a student from scratch.
        samples: samples of the training text, if the student's recipe measures importance.

    Raises:
        UserError: the student's tokenizer is not the run's, its layers or widths do not exist, or its configuration is
            wrong.
    """
    if isinstance(student, Copy):
        whole = _whole(teachers[student.teacher], tokenizer).requires_grad_(True)
        return whole, {"start": "copy", "from": student.teacher}
    if isinstance(student, PrunedLayers | PrunedWidth):
        return _pruned(student, teachers[student.teacher], tokenizer, samples)
    if isinstance(student, Checkpoint):
        return _checkpoint(student, tokenizer)
    model = from_scratch(student.config, "student.config", tokenizer, vocabulary, SCRATCH_SEED)
    return model, {"start": "scratch", "from": student.config["model_type"]}


def _whole(teacher: PreparedTeacher, tokenizer: Any) -> PreTrainedModel:
    """The teacher in float32; its embeddings and head are cut to the run's tokens if these are fewer."""
    whole = teacher.model(torch.float32)
    if len(tokenizer) < len(teacher.tokenizer()):
        keep_first_tokens(whole, len(tokenizer))
    return whole


def _pruned(
    student: PrunedLayers | PrunedWidth, teacher: PreparedTeacher, tokenizer: Any, samples: Batches
) -> tuple[PreTrainedModel, dict[str, Any]]:
    whole = _whole(teacher, tokenizer)
    summary: dict[str, Any] = {"start": student.start, "from": teacher.name}
    if isinstance(student, PrunedWidth):
        # Impossible widths are refused before anything is measured.
        family_of(whole)
        widths = (student.heads, student.key_value_heads, student.intermediate_size, student.hidden_size)
        wanted = pruned_widths(whole.config, *widths)
    if student.measured_samples:
        summary["measured_on"] = {"samples": sum(len(batch["labels"]) for batch in samples)}
    if student.layers is not None:
        keep, found = _kept_layers(student, whole, samples)
        whole = prune_layers(whole, keep).to(whole.device).eval()
        summary |= {"layers_kept": keep, **found}
    if not isinstance(student, PrunedWidth):
        return whole, summary
    narrow, kept = prune_width(whole, wanted, samples)
    return narrow.to(whole.device), summary | {"kept": asdict(kept)}


def _kept_layers(
    student: PrunedLayers | PrunedWidth, whole: PreTrainedModel, samples: Batches
) -> tuple[list[int], dict[str, Any]]:
    """The layers to keep and, if it was measured, the importance of each layer."""
    total, layers = whole.config.num_hidden_layers, student.layers
    assert layers is not None
    by_rule = chosen_layers(total, layers, student.rule)
    if student.rule != "importance":
        return by_rule, {}
    assert isinstance(layers, int), "the recipe checks this"
    by = student.by or "loss"
    figures = block_influence(whole, samples) if by == "hidden" else loss_increases(whole, samples)
    return most_important(figures, layers), {"importance": {"by": by, "layers": figures}}


def _checkpoint(student: Checkpoint, ours: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    files = checkpoint_files(student)
    tokenizer, model = files.tokenizer(), files.model(dtype=torch.float32)
    check_tokens(tokenizer, model.get_input_embeddings().num_embeddings, files.what)
    summary: dict[str, Any] = {"start": "checkpoint", "from": student.model}
    if student.vocabulary == "carry_over" and ours.get_vocab() != tokenizer.get_vocab():
        return model, summary | {"vocabulary": asdict(carry_over(model, tokenizer, ours, "student.vocabulary"))}
    remedy = (
        "take a student of the run's tokenizer, give this one the run's by `student.vocabulary: carry_over`, or give "
        "the run this one's by `tokenizer: {file: …}` and use the loss `alm`"
    )
    check_same_tokens(ours, tokenizer, "the run's tokenizer", f"student {student.model}", remedy)
    return model, summary


def checkpoint_files(student: Checkpoint) -> ModelSource:
    """Where a student comes from that exists already."""
    return ModelSource(student.model, "`student.model`", {"revision": student.revision})
