"""Split: which conversations are trained on, set aside to select by, or held out to judge by."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from potstill.data.conversations.conversation import Conversation
from potstill.data.conversations.read import conversations_of
from potstill.data.conversations.tally import ChatTally
from potstill.data.row_teachers import RowTeachers
from potstill.data.sources import SourceRow
from potstill.data.splitting import is_held_out
from potstill.errors import UserError
from potstill.recipe.conversations import Conversations, HeldOutConversations


@dataclass(frozen=True)
class ConversationSplit:
    """The distinct conversations of a corpus; each part is in the order of the conversations' hashes, and the training
    ones of a stream in the order of the stream."""

    train: list[Conversation]
    validation: list[Conversation]
    held_out: list[Conversation]
    repeated: int
    """The number of conversations left out because they repeat an earlier or a held-out one."""


def split_conversations(
    corpus: Conversations, tally: ChatTally, taught: RowTeachers | None = None
) -> ConversationSplit:
    """Read and split the conversations.

    The hash of a conversation's messages and tools decides its part and its place, as for documents
    (``splitting.py``). A stream is read until `train` conversations, and those of `validation`, are found.

    Args:
        corpus: the recipe's section.
        tally: counts the rows that are no proper conversations, where `on_bad_row` is `drop`.
        taught: says which teachers a row has; None where rows have none of their own.

    Raises:
        UserError: a source is missing or cannot be read, a row is no proper conversation, or a part is empty.
    """
    apart = corpus.held_out if isinstance(corpus.held_out, HeldOutConversations) else None
    dropped = _counter(tally) if corpus.on_bad_row == "drop" else None
    held_out: dict[bytes, Conversation] = {}
    if apart is not None:
        own = None if taught is None else RowTeachers(taught.rules)
        held_out = _distinct(conversations_of(apart.conversations, "corpus.held_out.conversations", dropped, own))
    given = _Read(conversations_of(corpus.conversations, "corpus.conversations", dropped, taught))
    wanted = (corpus.train or 0) + (corpus.validation or 0) if corpus.streams else None
    share = corpus.held_out if isinstance(corpus.held_out, float) else 0.0
    train: dict[bytes, Conversation] = {}
    for conversation in given:
        hashed = conversation.hash()
        if apart is None and is_held_out(hashed, share):
            held_out.setdefault(hashed, conversation)
        elif hashed not in held_out:
            train.setdefault(hashed, conversation)
        if wanted is not None and len(train) >= wanted:
            break
    repeated = given.count - len(train) - (0 if apart is not None else len(held_out))
    kept = list(train.values()) if corpus.streams else _in_order(train)
    aside = corpus.validation or 0
    judged = _in_order(held_out)[: None if apart is None else apart.count]
    split = ConversationSplit(kept[aside:][: corpus.train], kept[:aside], judged, repeated)
    _check(split, given.count, tally)
    return split


class _Read:
    """Conversations, counted while they are read."""

    def __init__(self, conversations: Iterable[Conversation]) -> None:
        self._conversations, self.count = conversations, 0

    def __iter__(self) -> Iterator[Conversation]:
        for conversation in self._conversations:
            self.count += 1
            yield conversation


def _check(split: ConversationSplit, read: int, tally: ChatTally) -> None:
    for name, part in (("train on", split.train), ("hold out", split.held_out)):
        if len(part) < (2 if name == "hold out" else 1):
            reasons = sum((source.dropped for source in tally.sources.values()), Counter[str]())
            most = reasons.most_common(1)
            why = f" ({reasons.total():,} rows were dropped, most because: {most[0][0]})" if most else ""
            raise UserError(
                f"`corpus.conversations` give {read:,} conversations{why}, which leaves {len(part)} to {name}; give "
                "more of them, or another `corpus.held_out` or `corpus.validation`"
            )


def _counter(tally: ChatTally) -> Callable[[SourceRow, str], None]:
    return lambda row, reason: tally.drop(row.origin, reason)


def _distinct(conversations: Iterable[Conversation]) -> dict[bytes, Conversation]:
    found: dict[bytes, Conversation] = {}
    for conversation in conversations:
        found.setdefault(conversation.hash(), conversation)
    return found


def _in_order(conversations: Mapping[bytes, Conversation]) -> list[Conversation]:
    # The first bytes may have decided the part already.
    return [conversations[hashed] for hashed in sorted(conversations, key=lambda hashed: hashed[8:])]
