"""Packing: several whole conversations in one sample, read as if each stood alone."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from potstill.data.conversations.render import ChatSample
from potstill.data.row_teachers import Teachers

AT_ONCE = 1000
"""The number of conversations that are packed together."""


@dataclass
class PackedConversations:
    """The tokens and labels of several conversations, one after the other."""

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    documents: list[int] = field(default_factory=list)
    """The number of tokens of each conversation. The first token of each is not learned."""
    teachers: Teachers | None = None
    """The teachers of all of them; None where rows have none of their own."""

    def add(self, sample: ChatSample) -> None:
        """Add a conversation."""
        self.input_ids += sample.input_ids
        self.labels += sample.labels
        self.documents.append(len(sample.input_ids))


def packed_conversations(samples: Iterable[ChatSample], sequence_length: int) -> Iterator[PackedConversations]:
    """Fill samples of at most `sequence_length` tokens with whole conversations.

    A thousand at a time are packed, the longest first, each where the least room stays. All conversations of a sample
    have the same teachers.
    """
    samples = iter(samples)
    while batch := list(islice(samples, AT_ONCE)):
        for teachers in dict.fromkeys(sample.teachers for sample in batch):
            alike = [sample for sample in batch if sample.teachers == teachers]
            for one in _best_fit(alike, sequence_length):
                one.teachers = teachers
                yield one


def _best_fit(samples: Sequence[ChatSample], sequence_length: int) -> list[PackedConversations]:
    packed: list[PackedConversations] = []
    rooms: list[tuple[int, int]] = []
    for sample in sorted(samples, key=lambda sample: -len(sample.input_ids)):
        size = len(sample.input_ids)
        place = bisect_left(rooms, (size, 0))
        if place == len(rooms):
            packed.append(PackedConversations())
            room, number = sequence_length, len(packed) - 1
        else:
            room, number = rooms.pop(place)
        packed[number].add(sample)
        insort(rooms, (room - size, number))
    return packed
