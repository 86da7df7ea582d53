"""Conversation files: the conversations, samples and audit that a step leaves in its folder."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Features, List, Value

from potstill.data.conversations.audit import audit_of
from potstill.data.conversations.chat_template import chat_template
from potstill.data.conversations.conversation import Conversation
from potstill.data.conversations.packing import packed_conversations
from potstill.data.conversations.samples import samples
from potstill.data.conversations.tally import ChatTally
from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError
from potstill.files.atomic import write_json, write_text
from potstill.files.dataset_writer import dataset_writer
from potstill.recipe.conversations import Conversations
from potstill.report.audit_page import render_audit

CONVERSATION = Features({name: Value("string") for name in ("id", "source", "messages", "tools")})
SAMPLE = Features({"input_ids": List(Value("int32")), "labels": List(Value("int32"))})
PACKED = Features({**SAMPLE, "documents": List(Value("int32"))})


def save_conversations(folder: Path, conversations: Sequence[Conversation]) -> None:
    """Save conversations, each under an id of its own, as ``artifacts.conversations`` reads them."""
    times = Counter[str]()
    with dataset_writer(folder, CONVERSATION) as write:
        for one in conversations:
            times[one.where] += 1
            # Files of one name in several folders have the same rows.
            name = one.where if times[one.where] == 1 else f"{one.where} ({times[one.where]})"
            write({"id": name, "source": one.source, **one.as_row()})


@dataclass
class SampleCounts:
    """Counts of the samples of conversations."""

    samples: int = 0
    tokens: int = 0
    supervised: int = 0

    def __str__(self) -> str:
        """One line for the console."""
        share = self.supervised / self.tokens if self.tokens else 0.0
        return f"{self.tokens:,} tokens in {self.samples:,} samples, {share:.1%} of them learned"


def save_samples(
    folder: Path, conversations: Sequence[Conversation], tokenizer: Any, corpus: Conversations, tally: ChatTally
) -> SampleCounts:
    """Make samples of conversations and save them, packed or each alone.

    Args:
        folder: the folder of the samples.
        conversations: the conversations.
        tokenizer: the run's tokenizer.
        corpus: the recipe's section.
        tally: counts what becomes of each conversation.

    Raises:
        UserError: a conversation cannot be rendered, or no sample is left.
    """
    found, counts = samples(conversations, tokenizer, corpus, tally), SampleCounts()
    features, rows = SAMPLE, ({"input_ids": one.input_ids, "labels": one.labels} for one in found)
    if corpus.layout == "packed":
        features, rows = PACKED, (vars(one) for one in packed_conversations(found, corpus.sequence_length))
    with dataset_writer(folder, features) as write:
        for row in rows:
            write(row)
            counts.samples += 1
            counts.tokens += len(row["input_ids"])
            counts.supervised += sum(label != IGNORE_INDEX for label in row["labels"][1:])
        if not counts.samples:
            raise UserError(
                f"`corpus.conversations`: {len(conversations):,} conversations give no sample ({_reasons(tally)}); "
                "raise `corpus.sequence_length`, set `corpus.too_long`, or give others"
            )
    return counts


def save_audit(folder: Path, tally: ChatTally, tokenizer: Any, corpus: Conversations) -> list[Path]:
    """Save what became of the conversations as `audit.html` and `audit.json`. Returns both files."""
    audit = audit_of(tally, tokenizer, chat_template(tokenizer, corpus).name)
    page, data = folder / "audit.html", folder / "audit.json"
    write_text(page, render_audit(audit))
    write_json(data, audit.as_json())
    return [page, data]


def _reasons(tally: ChatTally) -> str:
    dropped = sum((source.dropped for source in tally.sources.values()), Counter[str]())
    return "; ".join(f"{count:,} {reason}" for reason, count in dropped.most_common())
