"""Turn collator: adds to a batch what a store of turns says of its samples' words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from potstill.data.prompts.collator import TEACHER
from potstill.data.text_of_batch import SAME_BYTE, SPANS
from potstill.data.turns_of_batch import TurnsCollator, without_pieces
from potstill.losses.span_likelihood import TokenNumbers
from potstill.targets.content_keys import batch_keys
from potstill.targets.span_collator import NUMBERS
from potstill.targets.store import TargetStore


@dataclass(frozen=True)
class CapturedTurnsCollator:
    """A collator that adds a captured teacher's numbers and the spans of turns to each batch of samples with pieces.

    It makes the columns of :class:`TurnsCollator`, and the column NUMBERS with the numbers of the teacher's learned
    tokens.

    Args:
        turns: says what the teacher reads.
        store: the store.

    Raises:
        UserError: what a teacher reads of a sample was not captured, or the store is damaged.
    """

    turns: TurnsCollator
    store: TargetStore

    @property
    def collate(self) -> Any:
        """The collator of the student's batches."""
        return self.turns.collate

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The collator's batch, with the teacher's columns."""
        batch = self.collate([without_pieces(one) for one in samples])
        return batch | {f"{TEACHER}{name}": value for name, value in self.columns(batch, samples).items()}

    def columns(self, batch: Mapping[str, Tensor], samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The teacher's columns of a batch of samples, without their prefix."""
        found = self.turns.columns(batch, samples)
        rows = torch.tensor([row for row, one in enumerate(samples) if self.turns.teaches(one)], dtype=torch.int64)
        read = {name: value[rows] for name, value in found.items() if name not in (SPANS, SAME_BYTE)}
        numbers = self.store.decode(self.store.packed(batch_keys(read)))
        assert isinstance(numbers, TokenNumbers), "`captured_turns` takes no other store"
        return found | {NUMBERS: torch.stack(numbers, 1)}
