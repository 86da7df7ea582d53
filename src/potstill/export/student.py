"""Student: the trained student for export, in float32: as the run reads it, and as one plain model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from potstill.pipeline import artifacts
from potstill.pipeline.work import Work
from potstill.recipe.candidates import Candidate
from potstill.students.adapters import CONFIG, merged
from potstill.students.load_and_save import load_start, load_student


@dataclass(frozen=True)
class ExportedStudent:
    """A student that is exported."""

    model: PreTrainedModel
    """As it was trained: an adapter is still apart from its start."""
    plain: PreTrainedModel
    """The same as one model. An adapter is merged into the very weights that it was trained on, in float32."""
    tokenizer: Any
    """With the chat template of the run."""


def exported_student(work: Work, candidate: Candidate) -> ExportedStudent:
    """A trained student, in float32, for reading only."""
    folder, start, given = artifacts.trained_folder(work, candidate), _start(work), work.recipe.student
    model = load_student(folder, start, given, torch.float32)
    if given.quantization is None:
        model = model.float()
    is_adapter = (folder / CONFIG).is_file()
    plain = merged(load_start(start, given), folder).to(model.device).eval() if is_adapter else model
    return ExportedStudent(model, plain.requires_grad_(False), artifacts.tokenizer(work))


def _start(work: Work) -> Path:
    return work.run.path("student") / "start"
