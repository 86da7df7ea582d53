"""A teacher that runs beside the student."""

from collections.abc import Collection, Mapping
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from potstill.losses.head import Head
from potstill.losses.hidden_matching import Layers
from potstill.losses.model_head import head_of
from potstill.losses.reading import read_layers
from potstill.teachers.target import HiddenTarget, LogitsTarget, TeacherTarget


class LiveTeacher:
    """A frozen model that reads the student's batch.

    Args:
        model: the teacher.
        vocabulary: the number of ids, from 0, that it speaks of; default: all that its head has. See ``vocabulary.py``.
    """

    def __init__(self, model: PreTrainedModel, vocabulary: int | None = None) -> None:
        self.model = model.eval().requires_grad_(False)
        self.vocabulary = vocabulary
        self.head = self._head()

    def to(self, device: torch.device) -> None:
        """Move the teacher."""
        self.model.to(device)
        self.head = self._head()

    @torch.no_grad()
    def target(self, batch: Mapping[str, Tensor]) -> TeacherTarget:
        """What the teacher says about the batch's N supervised tokens.

        ``batch`` holds `input_ids`, `labels` and, if rows are padded, `attention_mask`, all [B, T].
        """
        return self.read(batch, ())[0]

    @torch.no_grad()
    def read(self, batch: Mapping[str, Tensor], layers: Collection[int]) -> tuple[TeacherTarget, Layers]:
        """:meth:`target`, and what some of the teacher's layers gave out for the same tokens, in one forward."""
        states, _, inner = read_layers(self.model, self.head, batch, layers)
        if self.head is None:
            return LogitsTarget(states[:, : self.vocabulary]), inner
        return HiddenTarget(states, self.head), inner

    def _head(self) -> Head | None:
        head = head_of(self.model)
        if head is None or self.vocabulary is None:
            return head
        bias = None if head.bias is None else head.bias[: self.vocabulary]
        return replace(head, weight=head.weight[: self.vocabulary], bias=bias)
