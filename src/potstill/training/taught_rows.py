"""Taught rows: which rows of a batch each teacher reads, where not every teacher teaches every row.

The rows that have the same teachers are a group. Everything that is sorted here is sorted by the loader, on the CPU, so
that the sizes of all groups are known to the host.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor

from potstill.data.collators import Collate
from potstill.data.labels import IGNORE_INDEX, count_supervised_by_row
from potstill.data.prompts.collator import teacher_batch
from potstill.data.row_teachers import TEACHERS, numbers_of_teachers
from potstill.data.turns_of_batch import without_pieces
from potstill.models.forward import SupervisedOutputs
from potstill.targets import TargetStore
from potstill.targets.collator import records_column
from potstill.targets.content_keys import batch_keys
from potstill.targets.span_collator import SpanCollator
from potstill.targets.turn_collator import CapturedTurnsCollator

GROUPS, ORDER = "taught_groups", "taught_order"
"""Columns of a batch: its :class:`TaughtGroups`, and the places of its supervised tokens, Int[N], group after group.
The order is left out where it is that of the batch."""


@dataclass(frozen=True)
class TaughtGroup:
    """The supervised tokens of the rows that have the same teachers."""

    teachers: tuple[int, ...]
    """The numbers of the teachers; empty where cross-entropy alone is learned."""
    tokens: int


@dataclass(frozen=True)
class TaughtGroups:
    """The groups of a batch. It is no tensor: whoever moves a batch to a device leaves it as it is."""

    groups: tuple[TaughtGroup, ...]

    def tokens_of(self, teacher: int) -> int:
        """The number of supervised tokens that a teacher teaches."""
        return sum(group.tokens for group in self.groups if teacher in group.teachers)

    @property
    def untaught(self) -> int:
        """The number of supervised tokens without a teacher."""
        return sum(group.tokens for group in self.groups if not group.teachers)


def in_groups(outputs: SupervisedOutputs, batch: Mapping[str, Tensor]) -> SupervisedOutputs:
    """A student's outputs for a batch, in the order of the batch's groups."""
    if ORDER not in batch:
        return outputs
    order = batch[ORDER]
    layers = {layer: states.index_select(0, order) for layer, states in outputs.layers.items()}
    states, labels = outputs.states.index_select(0, order), outputs.labels.index_select(0, order)
    return outputs._replace(states=states, labels=labels, layers=layers)


def reader_of(teacher: int) -> str:
    """How the names of the columns begin that a teacher reads."""
    return f"taught{teacher}_"


class OtherReading(Protocol):
    """What a teacher of another tokenizer reads of a batch, or has said of it."""

    def columns(self, batch: Mapping[str, Tensor], samples: Sequence[Any]) -> dict[str, Tensor]:
        """The teacher's columns of a batch of samples, without their prefix."""


@dataclass(frozen=True)
class TaughtRows:
    """Shares the rows of a batch out among teachers.

    Args:
        names: the name of each teacher, which samples have in their column `teachers`.
        stores: the teachers whose targets were captured, by number. The others read.
        others: the teachers of another tokenizer than the student's, by number, with what each reads of a batch.
        always: whether each teacher reads a row of every batch, if need be one of which nothing is learned. The ranks
            that share a teacher must read together.
    """

    names: tuple[str, ...]
    stores: Mapping[int, TargetStore]
    others: Mapping[int, OtherReading] = field(default_factory=dict)
    always: bool = False

    def group_of(self, sample: Mapping[str, Any]) -> tuple[int, ...]:
        """The numbers of the teachers of a sample. Groups are in the order of these.

        Raises:
            UserError: the sample does not name teachers that exist.
        """
        return numbers_of_teachers(sample, self.names)

    def shared_out(self, batch: Mapping[str, Tensor], samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The batch with its groups, and with what each of its teachers reads or has said.

        Args:
            batch: the samples as one batch, one row each.
            samples: the samples.
        """
        rows: dict[tuple[int, ...], list[int]] = {}
        for row, group in sorted(enumerate(map(self.group_of, samples)), key=lambda one: one[1]):
            rows.setdefault(group, []).append(row)
        counts = count_supervised_by_row(batch).tolist()
        groups = TaughtGroups(tuple(TaughtGroup(group, sum(counts[row] for row in of)) for group, of in rows.items()))
        every = [row for of in rows.values() for row in of]
        order = {} if every == sorted(every) else {ORDER: _places(every, counts)}
        own: dict[str, Any] = {}
        for teacher in range(len(self.names)):
            taught = [row for group, of in rows.items() if teacher in group for row in of]
            own |= self._for_teacher(teacher, batch, samples, taught)
        return {**batch, **own, **order, GROUPS: groups}

    def _for_teacher(
        self, teacher: int, batch: Mapping[str, Tensor], samples: Sequence[Mapping[str, Any]], rows: list[int]
    ) -> dict[str, Tensor]:
        if teacher in self.stores:
            taught = {name: value[rows] for name, value in batch.items()}
            return {records_column(teacher): self.stores[teacher].packed(batch_keys(taught))}
        reads = {name: value[rows or [0]] for name, value in teacher_batch(batch).items()}
        if not rows:
            # Nobody waits for a store.
            if not self.always or isinstance(self.others.get(teacher), SpanCollator | CapturedTurnsCollator):
                return {}
            reads["labels"] = torch.full_like(reads["labels"], IGNORE_INDEX)
        if teacher in self.others:
            reads = self.others[teacher].columns(reads, [samples[row] for row in rows or [0]])
        return {f"{reader_of(teacher)}{name}": value for name, value in reads.items()}


def _places(rows: Iterable[int], counts: Sequence[int]) -> Tensor:
    """The places of the supervised tokens of rows, among those of the whole batch."""
    starts = [0, *accumulate(counts)]
    return torch.cat([torch.arange(starts[row], starts[row] + counts[row]) for row in rows])


@dataclass(frozen=True)
class EachReadingCollator:
    """A collator of batches that several teachers read, each with a tokenizer of its own.

    Args:
        collate: the collator of the student's batches.
        others: what each teacher reads of a batch, in the teachers' order.
    """

    collate: Collate
    others: tuple[OtherReading, ...]

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The collator's batch, with the columns of each teacher."""
        batch = self.collate([without_pieces(sample) for sample in samples])
        own = {
            f"{reader_of(number)}{name}": value
            for number, other in enumerate(self.others)
            for name, value in other.columns(batch, samples).items()
        }
        return batch | own


@dataclass(frozen=True)
class TaughtRowsCollator:
    """A collator of samples that name their teachers."""

    collate: Collate
    taught: TaughtRows

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The collator's batch, shared out among teachers."""
        batch = self.collate([without_pieces(without_teachers(sample)) for sample in samples])
        return self.taught.shared_out(batch, samples)


def without_teachers(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The sample without the names of its teachers."""
    return {name: value for name, value in sample.items() if name != TEACHERS}
