"""What a training asks of a teacher beside the student, wherever that teacher runs."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from potstill.losses.teacher_target import TeacherTarget
from potstill.models.forward import LayerStates
from potstill.models.head import Head


class TeacherBeside(Protocol):
    """A teacher that reads the student's batches."""

    vocabulary: int | None
    """Its targets cover the ids from 0 to this number; None: all of its head's."""

    gives_whole_distributions: bool
    """Whether its targets are whole distributions, which serve every temperature and any of its ids."""

    @property
    def config(self) -> Any:
        """Its configuration: `vocab_size` and, where it is known, `max_position_embeddings`."""

    @property
    def embeddings(self) -> int:
        """The number of ids that it can read."""

    @property
    def head(self) -> Head | None:
        """The head that makes logits of its last hidden states; None where it shows no hidden states."""

    def to(self, device: torch.device) -> None:
        """Give targets on this device, and compute there where that is possible."""

    def shard(self, device: torch.device) -> None:
        """Leave each rank its part of the teacher."""

    def check_documents(self) -> None:
        """Refuse to read rows of several documents, if it cannot keep them apart."""

    def target(self, batch: Mapping[str, Tensor], temperature: float = 1.0) -> TeacherTarget:
        """The targets for the batch's N supervised tokens.

        Args:
            batch: `input_ids`, `labels` and, if rows are padded, `attention_mask`, all [B, T].
            temperature: that of a target that is not the whole distribution.
        """

    def targets(self, batches: Iterable[Mapping[str, Tensor]]) -> Iterator[TeacherTarget]:
        """:meth:`target` of many batches, in their order; a teacher may read some batches ahead."""

    def read(
        self, batch: Mapping[str, Tensor], layers: Collection[int], temperature: float = 1.0
    ) -> tuple[TeacherTarget, LayerStates]:
        """:meth:`target`, and the outputs of some of the teacher's layers for the same tokens."""
