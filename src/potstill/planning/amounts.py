"""Amounts of text: the samples and tokens of a recipe, and the steps of its trainings.

They are exact once the corpus is made. Before that, they are measured on the text (`planning/sampling`), or given by
`corpus.train_tokens`, `facts.text` or the size of the files. What is only assumed has an interval and a note.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from potstill.data.text_files import PLAIN
from potstill.errors import UserError
from potstill.planning.ranges import ZERO, Range
from potstill.planning.sampling.local_files import local_files
from potstill.planning.taught_shares import notes_of_shares, taught_shares
from potstill.planning.teacher_tokens import bytes_per_token, teacher_tokens
from potstill.recipe import Recipe
from potstill.recipe.conversations import Conversations, HeldOutConversations
from potstill.recipe.corpus import Corpus, HeldOutText
from potstill.recipe.facts import TextFacts
from potstill.recipe.no_effect import ACCUMULATION, BATCH, BATCH_DEFAULT
from potstill.recipe.questions import GeneratedQuestions, HeldOutQuestions, Questions

EPOCHS_DEFAULT = 3.0
"""transformers' own."""
TEXT_OF_FILE = Range(0.4, 0.9, 1.0)
"""The share of a table's bytes that is text."""
PROMPT_TOKENS, ANSWER_TOKENS = Range(40, 130, 400), Range(60, 150, 300)
"""Of a question of GSM8K with a shipped strategy, and of its reference solution."""


PADDING_ERROR = 1.1
"""The factor by which the length of batches may differ from that of some hundred samples."""


@dataclass(frozen=True)
class Amounts:
    """What a run reads. None stands for a number that nothing tells yet."""

    samples: Range | None
    """The training samples of one epoch."""
    tokens: Range | None
    """The training tokens of one epoch, without padding."""
    length: Range
    """The tokens of a sample of the student, as its batches have them."""
    teacher_length: Range
    """The same of a teacher, whose prompt may be longer."""
    answer: Range
    """The tokens of a sample that are learned."""
    held_out_samples: Range | None
    held_out_tokens: Range | None
    validation_samples: int
    origin: str
    """Where the numbers are from, in words."""
    notes: tuple[str, ...] = ()
    lost: Mapping[str, Range] = field(default_factory=dict)
    """How much is left out or cut, by what it is, in words; empty where the text was not read."""
    taught: Mapping[str, Range] | None = None
    """The share of the samples that each teacher teaches. None: each teaches all of them."""
    spans: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """The `tokens` and `blocks` of each teacher in the documents that it reads whole, where they are counted."""
    teacher_tokens: Mapping[str, Range] = field(default_factory=dict)
    """How many tokens each teacher of another tokenizer reads for one of the student's."""
    asked: Range | None = None
    """The prompts that a teacher answers, where not all of its answers become samples."""
    lengths: tuple[float, ...] = ()
    """The tokens of some samples that were drawn at random; empty where none was read, or where all are alike."""
    teacher_lengths: Mapping[str, Range] = field(default_factory=dict)
    """As `teacher_length`, by the sample set; empty where that was not measured."""

    def in_batch(self, rows: int) -> Range:
        """The tokens that a sample takes with its padding, in a batch of so many that are drawn at random.

        A batch has the length of its longest sample. Of the greatest of n draws from m values in their order, the i-th
        is the one with a probability of (i/m)^n - ((i-1)/m)^n.
        """
        several, count = sorted(self.lengths), len(self.lengths)
        if not several:
            return self.length
        chances = ((place / count) ** rows - ((place - 1) / count) ** rows for place in range(1, count + 1))
        longest = sum(chance * length for chance, length in zip(chances, several, strict=True))
        return Range.around(longest, PADDING_ERROR, PADDING_ERROR).at_most(max(self.length.high, several[-1]))

    def prompt_of(self, length: Range) -> Range:
        """The tokens of a sample's prompt, from those of the whole sample."""
        return Range.greatest([Range.exactly(1.0), length.less(self.answer)])

    def taught_by(self, name: str) -> Range:
        """The share of the samples that a teacher teaches."""
        return Range.exactly(1.0) if self.taught is None else self.taught[name]

    def tokens_of(self, name: str) -> Range:
        """How many tokens a teacher reads for one of the student's."""
        return self.teacher_tokens.get(name, Range.exactly(1.0))

    @property
    def supervised(self) -> Range | None:
        """The tokens of one epoch that are predicted."""
        return None if self.samples is None else self.samples * self.answer


def amounts_of(
    recipe: Recipe,
    made: Mapping[str, Any] | None,
    asked: Mapping[str, Any] | None,
    measured: Amounts | str | None = None,
) -> Amounts:
    """What a recipe reads.

    Args:
        recipe: the recipe.
        made: the figures of the finished corpus stage; None before that.
        asked: the figures of the prompts of the first sample set, once they are made.
        measured: what was measured on this machine before that, or a sentence that says why nothing was.
    """
    found = measured if isinstance(measured, Amounts) else _assumed(recipe, made, asked)
    shares = taught_shares(recipe, made)
    said = (measured,) if isinstance(measured, str) else ()
    spans = (made or {}).get("spans", {})
    read = teacher_tokens(recipe, {**(made or {}), **(asked or {})}, found.teacher_tokens)
    notes = (*found.notes, *said, *notes_of_shares(recipe, shares))
    return replace(found, taught=shares, spans=spans, teacher_tokens=read, notes=notes)


def _assumed(recipe: Recipe, made: Mapping[str, Any] | None, asked: Mapping[str, Any] | None) -> Amounts:
    corpus = recipe.corpus
    if isinstance(corpus, Questions):
        return _of_questions(corpus, recipe.facts.text, made, asked)
    found = (
        _of_conversations(recipe, corpus, made) if isinstance(corpus, Conversations) else _of_text(recipe, corpus, made)
    )
    return found if found.samples is not None else _unknown(found)


def _unknown(found: Amounts) -> Amounts:
    note = "how many tokens the text has is not known before it is read; give `corpus.train_tokens`, or `facts.text`"
    return replace(found, notes=(*found.notes, note))


def _of_text(recipe: Recipe, corpus: Corpus, made: Mapping[str, Any] | None) -> Amounts:
    width, facts = corpus.sequence_length, recipe.facts.text
    length = Range.exactly(width) if corpus.layout == "packed" else _padded_length(corpus, facts)
    held_out = held_out_text(recipe, corpus)
    found = Amounts(None, None, length, length, length + -1.0, *held_out, corpus.validation or 0, "not known yet")
    if made is not None:
        mean = Range.exactly(made["train_tokens"] / made["train_samples"])
        shape = mean if corpus.layout == "padded" else length
        samples, learned = made["train_samples"], made["supervised_tokens"] / made["train_samples"]
        read = min(made["held_out_documents"], recipe.evaluate.documents or made["held_out_documents"])
        share = read / made["held_out_documents"]
        return replace(
            found,
            samples=Range.exactly(samples),
            tokens=Range.exactly(made["train_tokens"]),
            length=shape,
            teacher_length=shape,
            answer=Range.exactly(learned),
            held_out_samples=Range.exactly(read),
            held_out_tokens=Range.around(made["held_out_tokens"] * share, 1.0 if share == 1 else 1.5, 1.5),
            validation_samples=made["validation_samples"],
            origin="counted in the corpus of this run",
        )
    if facts.train_samples is not None or facts.train_tokens is not None:
        count = facts.train_samples or (facts.train_tokens or 0) / length.expected
        return replace(
            found,
            samples=Range.around(count, 1.1, 1.1),
            tokens=Range.around(facts.train_tokens or count * length.expected, 1.1, 1.1),
            origin="as `facts.text` says",
        )
    if corpus.train_tokens is not None:
        samples = Range.exactly(corpus.train_tokens) / (length + -1.0)
        samples = Range(*(float(math.floor(one)) for one in samples.to_list()))
        return replace(
            found, samples=samples, tokens=samples * length, origin="`corpus.train_tokens`, if the text has as many"
        )
    bytes_here = _bytes_of(corpus.sources, "corpus.sources")
    if bytes_here is None:
        return found
    held = 0.0 if isinstance(corpus.held_out, HeldOutText) else corpus.held_out
    tokens = bytes_here * (1 - held) / bytes_per_token(recipe)
    return replace(
        found, samples=tokens / length, tokens=tokens, origin="estimated from the size of the files on this machine"
    )


def _padded_length(corpus: Corpus, facts: TextFacts) -> Range:
    """The mean length of samples that hold one document each."""
    if facts.train_tokens and facts.train_samples:
        return Range.around(facts.train_tokens / facts.train_samples, 1.05, 1.05)
    width, shortest = corpus.sequence_length, corpus.shortest or corpus.sequence_length / 8
    least = min(shortest, width)
    return Range(least, (least + width) / 2, width)


def held_out_text(recipe: Recipe, corpus: Corpus) -> tuple[Range | None, Range | None]:
    """The held-out documents that are measured, and their tokens."""
    width, facts = corpus.sequence_length, recipe.facts.text
    if isinstance(corpus.held_out, HeldOutText):
        every = min(corpus.held_out.sequences, recipe.evaluate.documents or corpus.held_out.sequences)
        return Range.exactly(every), Range.exactly(every * width)
    count = recipe.evaluate.documents
    if facts.held_out_tokens is not None and facts.held_out_samples is not None:
        share = min(1.0, (count or facts.held_out_samples) / facts.held_out_samples)
        tokens = Range.around(facts.held_out_tokens * share, 1.3, 1.3)
        return Range.exactly(facts.held_out_samples * share), tokens
    if count is None:
        return None, None
    # Short documents and long ones: a document has between a tenth of a sample and some samples.
    return Range(0, count, count), Range(0, count * width, 4.0 * count * width)


def _bytes_of(sources: Any, key: str) -> Range | None:
    """The bytes of text of files on this machine; None if a source is elsewhere, or missing."""
    try:
        files = local_files(sources, key)
    except (UserError, OSError):
        return None
    return sum((text_bytes(file) for file in files), ZERO) if files else None


def text_bytes(file: Path) -> Range:
    """The bytes of text in a file."""
    size = float(file.stat().st_size)
    if file.suffix in PLAIN:
        return Range.exactly(size)
    # Parquet and zstd are compressed.
    packed = file.suffix in (".parquet", ".zst", ".gz")
    return TEXT_OF_FILE * size * (Range(1.0, 2.2, 4.0) if packed else Range.exactly(1.0))


def _of_conversations(recipe: Recipe, corpus: Conversations, made: Mapping[str, Any] | None) -> Amounts:
    """Conversations: before they are rendered, one sample each, of any length."""
    facts, most = recipe.facts.text, corpus.sequence_length
    length = Range.exactly(most) if corpus.layout == "packed" else Range(most / 16, most / 2, most)
    held: int | None = corpus.held_out.count if isinstance(corpus.held_out, HeldOutConversations) else None
    samples = None if corpus.train is None else Range(corpus.train / 2, corpus.train, corpus.train * 2.0)
    answer, origin = Range(length.low / 4, length.expected / 2, length.high), "`corpus.train`, before it is rendered"
    if facts.train_samples is not None:
        samples, held, origin = (
            Range.around(facts.train_samples, 1.1, 1.1),
            held or facts.held_out_samples,
            "as `facts.text` says",
        )
    if made is not None:
        samples, held = Range.exactly(made["train_samples"]), made["held_out_conversations"]
        length = Range.exactly(made["train_tokens"] / made["train_samples"])
        answer = Range.exactly(made["supervised_tokens"] / made["train_samples"])
        origin = "counted in the corpus of this run"
    if held is not None:
        held = min(held, recipe.evaluate.documents or held)
    says_more = recipe.uses_strategies or (corpus.teacher is not None and corpus.teacher.has_prompt)
    room = 1.5 if says_more else 1.0
    return Amounts(
        samples=samples,
        tokens=None if samples is None else samples * length,
        length=length,
        teacher_length=Range.around(length.expected, 1.0, room) if made is not None else length,
        answer=answer,
        held_out_samples=None if held is None else Range.exactly(held),
        held_out_tokens=None if held is None else Range.around(held * length.expected, 2.0, 2.0),
        validation_samples=corpus.validation or 0,
        origin=origin,
    )


def _of_questions(
    corpus: Questions, facts: TextFacts, made: Mapping[str, Any] | None, asked: Mapping[str, Any] | None
) -> Amounts:
    most, longest = corpus.sequence_length, corpus.teacher_length or corpus.sequence_length
    prompt = PROMPT_TOKENS if facts.prompt_tokens is None else Range.around(facts.prompt_tokens, 1.15, 1.15)
    answer = ANSWER_TOKENS if facts.answer_tokens is None else Range.around(facts.answer_tokens, 1.15, 1.15)
    notes: tuple[str, ...] = ()
    if asked is not None:
        mean = asked["answer_tokens"] / asked["samples"]
        prompt, answer = Range.exactly(asked["tokens"] / asked["samples"] - mean), Range.exactly(mean)
    elif facts.prompt_tokens is None or facts.answer_tokens is None:
        notes = (
            "how long prompts and answers are is assumed; give `facts.text.prompt_tokens` and `answer_tokens`, or run "
            "the stage `strategies`",
        )
    made_here, held_here = _generated(corpus)
    train = corpus.train or facts.train_samples or made_here
    held = corpus.held_out.count if isinstance(corpus.held_out, HeldOutQuestions) else None
    held, origin = held or facts.held_out_samples or held_here, "as the recipe says"
    if made is not None:
        train, held, origin = made["train_questions"], made["held_out_questions"], "counted in the corpus of this run"
    length = (prompt + answer).at_most(most)
    # A teacher's prompt says more.
    theirs = (prompt * Range(1.0, 1.3, 2.5) + answer).at_most(longest)
    samples = None if train is None else Range.exactly(train)
    if samples is None:
        notes += ("how many questions there are is not known; give `corpus.train`, or `facts.text.train_samples`",)
    return Amounts(
        samples=samples,
        tokens=None if samples is None else samples * length,
        length=length,
        teacher_length=theirs,
        answer=answer.at_most(most),
        held_out_samples=None if held is None else Range.exactly(held),
        held_out_tokens=None if held is None else Range.exactly(held) * length,
        validation_samples=corpus.validation or 0,
        origin=origin,
        notes=notes,
    )


def _generated(corpus: Questions) -> tuple[int | None, int | None]:
    """The questions to train on, and those that are held out, where all of them are generated. Some of them may come
    out alike."""
    counts = [one.count for one in corpus.questions if isinstance(one, GeneratedQuestions)]
    if len(counts) < len(corpus.questions):
        return None, None
    apart = isinstance(corpus.held_out, HeldOutQuestions)
    held = 0 if isinstance(corpus.held_out, HeldOutQuestions) else round(sum(counts) * corpus.held_out)
    return max(1, sum(counts) - held - (corpus.validation or 0)), None if apart else held


@dataclass(frozen=True)
class Schedule:
    """How often a training reads its samples."""

    steps: Range
    """Optimizer steps."""
    samples: Range
    """Samples that are read, repetitions included, on all ranks."""
    micro_batch: int
    accumulation: int


def schedule(training: Mapping[str, Any], samples: Range | None, ranks: int = 1) -> Schedule | None:
    """The steps of a training, as transformers counts them. None if that depends on an unknown number of samples.

    Args:
        training: the recipe's fields of `TrainingArguments`.
        samples: the samples of one epoch.
        ranks: the processes that share them.
    """
    batch, times = int(training.get(BATCH, BATCH_DEFAULT)), int(training.get(ACCUMULATION, 1))
    of_step = batch * times * ranks
    if training.get("max_steps", -1) > 0:
        steps = Range.exactly(training["max_steps"])
        return Schedule(steps, steps * of_step, batch, times)
    if samples is None:
        return None
    epochs = float(training.get("num_train_epochs", EPOCHS_DEFAULT))
    found = [
        math.ceil(epochs * max(1, math.ceil(math.ceil(one / (batch * ranks)) / times))) for one in samples.to_list()
    ]
    return Schedule(Range(*map(float, found)), samples * epochs, batch, times)
