"""A teacher that runs beside the student."""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from potstill.losses.model_head import head_of
from potstill.losses.reading import read_batch
from potstill.teachers.target import HiddenTarget, LogitsTarget, TeacherTarget


class LiveTeacher:
    """A frozen model that reads the student's batch."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model.eval().requires_grad_(False)
        self.head = head_of(self.model)

    @torch.no_grad()
    def target(self, batch: Mapping[str, Tensor]) -> TeacherTarget:
        """What the teacher says about the batch's N supervised tokens.

        ``batch`` holds `input_ids`, `labels` and, if rows are padded, `attention_mask`, all [B, T].
        """
        states, _ = read_batch(self.model, self.head, batch)
        return LogitsTarget(states) if self.head is None else HiddenTarget(states, self.head)
