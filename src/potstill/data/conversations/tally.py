"""Tally: what became of the conversations of each source, by which the mask can be trusted."""

from bisect import insort
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from potstill.data.conversations.conversation import Conversation
from potstill.data.conversations.render import ChatSample

SHOWN = 10
"""The number of conversations of each source that the audit shows."""

Outcome = Literal["whole", "cut", "split"]
"""`cut`: a part of it was too long and is lost. `split`: it became several samples."""


@dataclass(frozen=True, order=True)
class ShownSample:
    """A sample that the audit shows. The hash of its conversation decides which ones are shown."""

    hash: bytes
    sample: ChatSample = field(compare=False)


@dataclass
class SourceTally:
    """The conversations of one source."""

    conversations: Counter[Outcome] = field(default_factory=Counter)
    """The number of conversations that are learned, by what became of them."""
    dropped: Counter[str] = field(default_factory=Counter)
    """The number of rows that are left out, by reason."""
    samples: int = 0
    turns: int = 0
    """The number of learned turns."""
    turns_in_all: int = 0
    """The number of the assistant's turns, with those of conversations that were too long."""
    tokens: int = 0
    supervised: int = 0
    """The number of supervised tokens."""
    rewritten: int = 0
    """The number of conversations whose earlier turns the template rewrites, so that each turn has its own sample."""
    left_out: Counter[str] = field(default_factory=Counter)
    """The number of learned turns whose `reasoning`, `content` or `tools` the template does not show."""
    shown: list[ShownSample] = field(default_factory=list)
    """The samples with the smallest hashes."""

    @property
    def rows(self) -> int:
        """The number of rows that were read."""
        return self.conversations.total() + self.dropped.total()


@dataclass
class ChatTally:
    """What became of all conversations."""

    template_digest: str = ""
    """The SHA-256 of the chat template and its variables."""
    sources: dict[str, SourceTally] = field(default_factory=dict)

    def of(self, source: str) -> SourceTally:
        """The tally of one source."""
        return self.sources.setdefault(source, SourceTally())

    def drop(self, source: str, reason: str) -> None:
        """Count a row that is left out."""
        self.of(source).dropped[reason] += 1

    def keep(self, conversation: Conversation, outcome: Outcome, samples: list[ChatSample]) -> None:
        """Count the samples of a conversation."""
        tally = self.of(conversation.source)
        tally.conversations[outcome] += 1
        tally.samples += len(samples)
        for sample in samples:
            tally.turns += len(sample.turns)
            tally.tokens += len(sample.input_ids)
            tally.supervised += sample.supervised
        insort(tally.shown, ShownSample(conversation.hash(), samples[-1]))
        del tally.shown[SHOWN:]
