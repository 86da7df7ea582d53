"""Measured chats: the samples of conversations that are on this machine, from some of them that are rendered."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from potstill.data.conversations.conversation import Conversation
from potstill.data.conversations.split import split_conversations
from potstill.data.conversations.tally import ChatTally
from potstill.data.conversations.training_rows import training_rows
from potstill.data.prompts.collator import TEACHER
from potstill.errors import UserError
from potstill.planning.amounts import Amounts
from potstill.planning.ranges import Range
from potstill.planning.sampling.estimate import drawn, mean, ratio
from potstill.planning.sampling.local_files import check_size, local_files
from potstill.recipe import Recipe
from potstill.recipe.chat_strategies import reading_under
from potstill.recipe.conversations import Conversations, HeldOutConversations

CONVERSATIONS = 300
"""The greatest number of conversations that are rendered."""

WRITTEN, WRITTEN_KEPT = Range(0.15, 0.6, 1.0), Range(0.2, 0.65, 1.0)
"""What is assumed of answers that a teacher will write: their tokens as a share of the greatest number, and the share
of them that is learned. Those that do not end by then are not: of SmolLM2-135M's, a quarter (`chat-mini`) to a half
(docs/experiments/chat.md)."""
UNREAD = 1.1
"""How many times as long as the longest prompt that was read another may be."""
GOLDEN = 0.618
"""Its multiples spread evenly between 0 and 1, in no order."""

ChatRows = list[dict[str, list[int]]]


def measured_chats(recipe: Recipe, corpus: Conversations, tokenizer: Any) -> Amounts:
    """The amounts of conversations whose sources are on this machine.

    Args:
        recipe: the recipe.
        corpus: its corpus.
        tokenizer: the run's tokenizer.

    Raises:
        UserError: a source is not on this machine or too large, or is wrong as `split_conversations` and
            `training_rows` say.
    """
    files = local_files(corpus.conversations, "corpus.conversations")
    if isinstance(corpus.held_out, HeldOutConversations):
        files += local_files(corpus.held_out.conversations, "corpus.held_out.conversations")
    check_size(files, "corpus.conversations")
    split, tally = split_conversations(corpus, ChatTally()), ChatTally()
    count = len(split.train)
    some = [split.train[place] for place in drawn(count, CONVERSATIONS)]
    rows = _rows_of_each(some, tokenizer, corpus, tally)
    if not any(rows):
        raise UserError("`corpus.conversations`: none of those that were rendered gives a sample")
    per_chat = mean([float(len(one)) for one in rows], count)
    length, answer = (_of_sample(rows, name, count) for name in ("input_ids", "labels"))
    lengths = tuple(float(len(row["input_ids"])) for one in rows for row in one)
    longest = max(lengths)
    samples = per_chat * float(count)
    if corpus.layout == "packed":
        full, packed = float(corpus.sequence_length), list(training_rows(some, tokenizer, corpus, ChatTally()))
        of_packed = sum(map(len, rows)) / len(packed)
        samples, length, answer = samples / of_packed, (length * of_packed).at_most(full), answer * of_packed
        longest = full
    held = min(len(split.held_out), recipe.evaluate.documents or len(split.held_out))
    shape = Range(length.low, length.expected, max(length.high, longest))
    found = Amounts(
        samples=samples,
        tokens=samples * length,
        length=shape,
        teacher_length=_of_teachers(recipe, corpus, tokenizer, some, count) or shape,
        answer=answer,
        held_out_samples=Range.exactly(held),
        held_out_tokens=length * (held * 1.0) * Range(0.7, 1.0, 1.5),
        validation_samples=corpus.validation or 0,
        lengths=() if corpus.layout == "packed" else lengths,
        origin=f"measured: {len(some):,} of {count:,} conversations were rendered and tokenized",
        lost={"conversations that repeat others": Range.exactly(split.repeated), **_lost(tally, len(some), count)},
    )
    given = recipe.generate
    if given is None or given.turns == "each" or corpus.layout == "packed":
        return found
    learned = [float(_count(row["labels"], "labels")) for one in rows for row in one]
    return _answered(found, learned, WRITTEN * given.max_new_tokens, count, per_chat.expected)


def _answered(found: Amounts, learned: Sequence[float], written: Range, asked: int, per_chat: float) -> Amounts:
    """The amounts with written answers in place of those of the conversations.

    Args:
        found: the amounts with the conversations' own answers.
        learned: the tokens of the own answer of each sample of `found.lengths`.
        written: the tokens of a written answer.
        asked: the conversations. Those whose own answers are too long are asked for too.
        per_chat: the samples of a conversation with its own answers: more than one where long ones are split.
    """
    samples, length = WRITTEN_KEPT * asked * max(1.0, per_chat), found.length.less(found.answer) + written
    # Own answers that are longer than written ones can be do not count. A prompt that was not read may be longer.
    prompts = [one - own for one, own in zip(found.lengths, learned, strict=True)]
    longest = UNREAD * max(prompts) + written.high
    for_teachers = max(0.0, found.teacher_length.expected - found.length.expected)
    length = length.at_most(longest)
    # Answers of all lengths, so that a batch has the padding of unequal ones.
    spread = written.high - written.low
    lengths = (prompt + written.low + place * GOLDEN % 1.0 * spread for place, prompt in enumerate(prompts))
    return replace(
        found,
        samples=samples,
        asked=Range.exactly(asked),
        tokens=samples * length,
        length=length,
        lengths=tuple(lengths),
        teacher_length=(found.teacher_length.less(found.answer) + written).at_most(longest + for_teachers),
        answer=written,
        origin=f"{found.origin}; the length of written answers is assumed",
    )


def _rows_of_each(
    some: Sequence[Conversation], tokenizer: Any, corpus: Conversations, tally: ChatTally
) -> list[ChatRows]:
    """The rows of each conversation, before they are packed."""
    alone = corpus.model_copy(update={"layout": "padded"})
    return [list(training_rows([one], tokenizer, alone, tally)) for one in some]


def _of_teachers(
    recipe: Recipe, corpus: Conversations, tokenizer: Any, some: Sequence[Conversation], count: int
) -> Range | None:
    """The tokens of a sample as the teachers read it, under the strategy with the most; None: as the student does."""
    readings = [reading_under(recipe, one.strategy) for one in recipe.sample_sets.values()] or [corpus.teacher]
    found = []
    for reading in filter(None, readings):
        read = corpus.model_copy(update={"teacher": reading})
        rows = _rows_of_each(some, tokenizer, read, ChatTally())
        if any(rows):
            mean_of = _of_sample(rows, f"{TEACHER}input_ids", count)
            found.append(Range(mean_of.low, mean_of.expected, _longest(rows)))
    return max(found, key=lambda one: one.expected, default=None)


def _of_sample(rows: Sequence[ChatRows], name: str, count: int) -> Range:
    """The mean number of tokens in a column of a sample; of `labels`, of those that are learned."""
    sizes = [float(len(one)) for one in rows]
    tokens = [float(sum(_count(row.get(name, []), name) for row in one)) for one in rows]
    return ratio(tokens, sizes, count)


def _count(column: Sequence[int], name: str) -> int:
    return sum(one >= 0 for one in column[1:]) if name == "labels" else len(column)


def _longest(rows: Sequence[ChatRows]) -> float:
    return float(max(len(row[f"{TEACHER}input_ids"]) for one in rows for row in one))


def _lost(tally: ChatTally, some: int, count: int) -> dict[str, Range]:
    """The conversations that are left out, cut or split, by what becomes of them."""
    found = Counter[str]()
    for source in tally.sources.values():
        found.update({f"conversations left out ({reason})": number for reason, number in source.dropped.items()})
        found.update({f"conversations that are {what}": source.conversations[what] for what in ("cut", "split")})
    return {
        what: (mean([1.0] * number + [0.0] * (some - number), count) * float(count)).at_most(count)
        for what, number in found.items()
        if number
    }
