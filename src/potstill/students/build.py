"""Building a student as it is before any training."""

import difflib
from collections.abc import Iterable
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, set_seed

from potstill.recipe.student import Checkpoint, PrunedLayers, Scratch, Student
from potstill.students.prune import chosen_layers, prune_layers
from potstill.teachers.huggingface import Prepared
from potstill.text.tokenizers import check_same_tokens
from potstill.words import UserError, first_line

SCRATCH_SEED = 0
"""Random weights are drawn once for a run, so that every seed of student and control starts from the same ones."""


def build(student: Student, teachers: dict[str, Prepared]) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The student in float32, and a few words on how it came to be.

    Raises:
        UserError: its tokenizer is not the teachers', its layers do not exist, or its configuration is wrong.
    """
    if isinstance(student, PrunedLayers):
        return _pruned(student, teachers[student.teacher])
    first = next(iter(teachers.values()))
    return _checkpoint(student, first) if isinstance(student, Checkpoint) else _scratch(student, first)


def _pruned(student: PrunedLayers, teacher: Prepared) -> tuple[PreTrainedModel, dict[str, Any]]:
    whole = teacher.model(torch.float32)
    keep = chosen_layers(whole.config.num_hidden_layers, student.layers, student.rule)
    return prune_layers(whole, keep), {"start": "prune_layers", "from": teacher.name, "layers_kept": keep}


def _checkpoint(student: Checkpoint, teacher: Prepared) -> tuple[PreTrainedModel, dict[str, Any]]:
    try:
        model = AutoModelForCausalLM.from_pretrained(student.model, revision=student.revision, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(student.model, revision=student.revision)
    except (OSError, ValueError) as error:
        raise UserError(f"`student.model`: {student.model!r} cannot be loaded: {first_line(error)}") from error
    check_same_tokens(teacher.tokenizer(), tokenizer, f"teachers.{teacher.name}", f"student {student.model}")
    return model, {"start": "checkpoint", "from": student.model}


def _scratch(student: Scratch, teacher: Prepared) -> tuple[PreTrainedModel, dict[str, Any]]:
    fields = dict(student.config)
    kind = fields.pop("model_type")
    if kind not in CONFIG_MAPPING:
        raise UserError(f"`student.config.model_type`: transformers has no {kind!r}{_hint(kind, CONFIG_MAPPING)}")
    _check_fields(fields, CONFIG_MAPPING[kind])
    vocabulary = teacher.config().vocab_size
    if fields.setdefault("vocab_size", vocabulary) != vocabulary:
        raise UserError(
            f"`student.config.vocab_size` is {fields['vocab_size']:,}, but teacher {teacher.name!r} has "
            f"{vocabulary:,}; remove it"
        )
    tokenizer = teacher.tokenizer()
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        fields.setdefault(name, getattr(tokenizer, name))
    try:
        config = AutoConfig.for_model(kind, **fields)
        set_seed(SCRATCH_SEED)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32), {"start": "scratch", "from": kind}
    except (KeyError, ValueError, TypeError, RuntimeError, ZeroDivisionError, StrictDataclassError) as error:
        raise UserError(f"`student.config` makes no model: {first_line(error)}") from error


def _check_fields(fields: dict[str, Any], config_class: Any) -> None:
    """Refuse what a configuration would take, keep and never read: a mistyped size would be a default size."""
    known = {*config_class().to_dict(), *config_class.attribute_map}
    for name in fields:
        if name not in known:
            raise UserError(f"`student.config.{name}`: {config_class.__name__} has no such field{_hint(name, known)}")


def _hint(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean `{near[0]}`?" if near else "; see the documentation of transformers"
