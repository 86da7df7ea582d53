"""Audit: what is learned of the conversations, as figures and as texts that a person can check."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from pydantic import TypeAdapter

from potstill.data.conversations.render import ChatSample
from potstill.data.conversations.tally import ChatTally, SourceTally
from potstill.data.labels import IGNORE_INDEX


@dataclass(frozen=True)
class TextRun:
    """Neighbouring tokens that are all learned, or all not."""

    text: str
    learned: bool


@dataclass(frozen=True)
class ShownConversation:
    """A conversation that the audit shows: the last of its samples."""

    where: str
    """Its row."""
    runs: tuple[TextRun, ...]


@dataclass(frozen=True)
class SourceAudit:
    """What became of the conversations of one source."""

    source: str
    rows: int
    """The number of rows that were read."""
    conversations: Mapping[str, int]
    """The number of conversations that are learned `whole`, `cut` or `split`."""
    dropped: Mapping[str, int]
    """The number of rows that are left out, by reason."""
    samples: int
    turns: int
    """The number of the assistant's turns that are learned."""
    turns_in_all: int
    tokens: int
    supervised: int
    rewritten: int
    """The number of conversations whose earlier turns the template rewrites."""
    left_out: Mapping[str, int]
    """The number of learned turns whose `reasoning` or `content` the template does not show."""
    shown: tuple[ShownConversation, ...]


@dataclass(frozen=True)
class Audit:
    """What is learned of the conversations of all sources."""

    template: str
    """The name of the chat template."""
    digest: str
    """The SHA-256 of the chat template and its variables."""
    sources: tuple[SourceAudit, ...]

    @property
    def share(self) -> float:
        """The share of supervised tokens."""
        tokens = sum(source.tokens for source in self.sources)
        return sum(source.supervised for source in self.sources) / tokens if tokens else 0.0

    def as_json(self) -> dict[str, Any]:
        """The audit as JSON; :func:`read_audit` reads it."""
        return asdict(self)


def read_audit(value: Any) -> Audit:
    """An audit of its JSON."""
    return TypeAdapter(Audit).validate_python(value)


def audit_of(tally: ChatTally, tokenizer: Any, template: str) -> Audit:
    """The audit of the conversations that were counted.

    Args:
        tally: what became of each conversation.
        tokenizer: the tokenizer of the samples.
        template: the name of the chat template.
    """
    sources = (_source(name, source, tokenizer) for name, source in sorted(tally.sources.items()))
    return Audit(template, tally.template_digest, tuple(sources))


def _source(name: str, tally: SourceTally, tokenizer: Any) -> SourceAudit:
    shown = (ShownConversation(one.sample.where, text_runs(one.sample, tokenizer)) for one in tally.shown)
    return SourceAudit(
        source=name,
        rows=tally.rows,
        conversations=dict(tally.conversations.items()),
        dropped=dict(tally.dropped.most_common()),
        samples=tally.samples,
        turns=tally.turns,
        turns_in_all=tally.turns_in_all,
        tokens=tally.tokens,
        supervised=tally.supervised,
        rewritten=tally.rewritten,
        left_out=dict(tally.left_out),
        shown=tuple(shown),
    )


def text_runs(sample: ChatSample, tokenizer: Any) -> tuple[TextRun, ...]:
    """The text of a sample, parted where it begins or ends to be learned."""
    pairs = groupby(zip(sample.input_ids, sample.labels, strict=True), key=lambda pair: pair[1] != IGNORE_INDEX)
    return tuple(TextRun(tokenizer.decode([token for token, _ in run]), learned) for learned, run in pairs)
