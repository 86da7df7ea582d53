"""Conversation files: the samples of conversations that a step leaves in its folder, and the audit that shows them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets import Features, List, Value

from potstill.console import progress, say
from potstill.data.compared_turns import ComparedTurns
from potstill.data.conversations.across import OtherReaders, rows_across
from potstill.data.conversations.audit import Audit, audit_of
from potstill.data.conversations.chat_template import chat_template
from potstill.data.conversations.conversation import Conversation
from potstill.data.conversations.tally import ChatTally
from potstill.data.conversations.training_rows import ROW, columns_of, training_rows
from potstill.data.labels import IGNORE_INDEX
from potstill.data.row_teachers import TEACHERS
from potstill.data.turns_of_batch import PIECE_COLUMNS
from potstill.files.atomic import write_json, write_text
from potstill.files.dataset_writer import dataset_writer
from potstill.pipeline.row_teachers import TaughtCounts, with_teachers
from potstill.recipe.conversations import Conversations
from potstill.report.audit_page import audit_notes, render_audit

AUDIT = ("audit.html", "audit.json")


def save_samples(
    folder: Path,
    conversations: Sequence[Conversation],
    tokenizer: Any,
    corpus: Conversations,
    tally: ChatTally,
    counted: TaughtCounts | None = None,
) -> int:
    """Save the samples of conversations. Returns their number.

    Args:
        folder: the folder of the samples.
        conversations: the conversations.
        tokenizer: the run's tokenizer.
        corpus: the recipe's section.
        tally: counts what becomes of each conversation.
        counted: counts the samples by their teachers. None: conversations have no teachers of their own.

    Raises:
        UserError: as :func:`training_rows`.
    """
    features, written = _features(columns_of(corpus)), 0
    if counted is not None:
        features = with_teachers(features)
    showing = progress(f"rendering {folder.name}", len(conversations), "conversations")
    with dataset_writer(folder, features) as write, showing as advance:
        for row in training_rows(_shown(conversations, advance), tokenizer, corpus, tally):
            write(row)
            written += 1
            if counted is not None:
                counted.add(tuple(row[TEACHERS]), sum(label != IGNORE_INDEX for label in row["labels"][1:]))
    return written


def save_samples_across(
    folder: Path,
    conversations: Sequence[Conversation],
    readers: OtherReaders,
    corpus: Conversations,
    tally: ChatTally,
    counted: TaughtCounts | None = None,
) -> tuple[int, list[ComparedTurns]]:
    """As :func:`save_samples`, of samples that teachers of other tokenizers read. Returns also what is compared with
    each of them.

    Args:
        folder: the folder of the samples.
        conversations: the conversations.
        readers: the tokens of all models.
        corpus: the recipe's section.
        tally: counts what becomes of each conversation.
        counted: counts the samples by their teachers. None: conversations have no teachers of their own.

    Raises:
        UserError: as :func:`rows_across`.
    """
    compared, written = [ComparedTurns() for _ in readers.teachers], 0
    features = _features(ROW, PIECE_COLUMNS)
    showing = progress(f"rendering {folder.name}", len(conversations), "conversations")
    with (
        dataset_writer(folder, features if counted is None else with_teachers(features)) as write,
        showing as advance,
    ):
        for row in rows_across(_shown(conversations, advance), readers, corpus, tally, compared):
            write(row)
            written += 1
            if counted is not None:
                counted.add(tuple(row[TEACHERS]), sum(label != IGNORE_INDEX for label in row["labels"][1:]))
    return written, compared


def _features(names: Iterable[str], of_teachers: Iterable[str] = ()) -> Features:
    each = List(Value("int32"))
    return Features(dict.fromkeys(names, each) | dict.fromkeys(of_teachers, List(each)))


def _shown(conversations: Iterable[Conversation], advance: Callable[[int], None]) -> Iterator[Conversation]:
    for conversation in conversations:
        yield conversation
        advance(1)


def save_audit(folder: Path, tally: ChatTally, tokenizer: Any, corpus: Conversations) -> Audit:
    """Save what became of the conversations as `audit.html` and `audit.json`, and print what one would not expect."""
    audit = audit_of(tally, tokenizer, chat_template(tokenizer, corpus).name)
    write_text(folder / "audit.html", render_audit(audit))
    write_json(folder / "audit.json", audit.as_json())
    for note in audit_notes(audit):
        say(f"  {note}")
    return audit


def audit_figures(audit: Audit) -> dict[str, int]:
    """The sums over all sources, for a manifest."""
    sums = {name: sum(getattr(one, name) for one in audit.sources) for name in ("tokens", "supervised")}
    dropped = sum(sum(one.dropped.values()) for one in audit.sources)
    return {"train_tokens": sums["tokens"], "supervised_tokens": sums["supervised"], "dropped_rows": dropped}
