"""Span captures: what teachers of other tokenizers read for `capture.keep: spans`, and what is kept of it.

Of texts they read the training documents, of conversations and questions the training samples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from potstill.data.conversations.chat_template import ChatTemplate, chat_template
from potstill.data.prompts.render import end_token_id, template_fingerprint
from potstill.data.row_teachers import TEACHERS
from potstill.data.token_bytes import TokenBytes
from potstill.data.turns_of_batch import TeacherSide
from potstill.errors import UserError
from potstill.pipeline import artifacts, training_data
from potstill.pipeline.document_texts import document_blocks
from potstill.pipeline.work import Work
from potstill.recipe import Recipe
from potstill.recipe.conversations import Conversations
from potstill.targets import Codec, Provenance, SizeEstimate, StoreSpec, TargetStore, estimate
from potstill.targets.codecs.spans import SpanCodec
from potstill.targets.codecs.turns import TurnCodec
from potstill.targets.span_slices import SpanSlices
from potstill.teachers.beside import TeacherBeside
from potstill.teachers.capture_spans import DocumentBlocks, UntoldMass, capture_spans, read_blocks
from potstill.teachers.capture_turns import ReadTurns, capture_turns, numbers_of_turns
from potstill.teachers.prepared import PreparedTeacher


class SpanCapture(Protocol):
    """What is captured of one teacher."""

    @property
    def codec(self) -> Codec:
        """The codec of the store."""

    @property
    def origin(self) -> Provenance:
        """The store's provenance."""

    @property
    def size(self) -> SizeEstimate:
        """The size of its store."""

    @property
    def tokens(self) -> int:
        """The teacher's tokens that the store has."""

    def write(self, store: StoreSpec, beside: TeacherBeside, at_once: int, ranks: tuple[int, int]) -> UntoldMass:
        """Write the part of this rank, the first number, of all ranks, the second. Returns what was not told of it."""

    def check(self, found: TargetStore) -> None:
        """Refuse a store that lacks what this run reads."""

    def tokens_of_a_batch(self, beside: TeacherBeside, at_once: int) -> int:
        """Read the first batch, and return the number of its tokens."""

    def told(self, found: TargetStore) -> str:
        """What a store has, in a few words."""


@dataclass(frozen=True)
class DocumentCapture:
    """The spans of documents."""

    documents: DocumentBlocks
    origin: Provenance

    @property
    def codec(self) -> SpanCodec:
        """The codec of the store."""
        return self.documents.codec

    @property
    def size(self) -> SizeEstimate:
        """As :class:`SpanCapture`."""
        return estimate(self.codec, tokens=self.tokens, samples=len(self.documents.blocks.counts))

    @property
    def tokens(self) -> int:
        """As :class:`SpanCapture`."""
        return int(self.documents.blocks.counts.sum())

    def write(self, store: StoreSpec, beside: TeacherBeside, at_once: int, ranks: tuple[int, int]) -> UntoldMass:
        """As :class:`SpanCapture`."""
        return capture_spans(store, beside, self.documents, at_once, *ranks)[1]

    def check(self, found: TargetStore) -> None:
        """As :class:`SpanCapture`."""
        SpanSlices(found).check(self.documents.documents)

    def tokens_of_a_batch(self, beside: TeacherBeside, at_once: int) -> int:
        """As :class:`SpanCapture`."""
        places = np.arange(min(at_once, len(self.documents.blocks.counts)))
        read_blocks(beside, self.documents, places, at_once)
        return int(self.documents.blocks.counts[places].sum())

    def told(self, found: TargetStore) -> str:
        """As :class:`SpanCapture`."""
        return f"{len(found):,} blocks of documents"


@dataclass(frozen=True)
class TurnCapture:
    """The spans of turns or answers."""

    turns: ReadTurns
    origin: Provenance

    @property
    def codec(self) -> TurnCodec:
        """The codec of the store."""
        return TurnCodec()

    @property
    def size(self) -> SizeEstimate:
        """As :class:`SpanCapture`."""
        return estimate(self.codec, tokens=self.tokens, samples=len(self.turns.samples))

    @property
    def tokens(self) -> int:
        """As :class:`SpanCapture`."""
        return int(self.turns.contents.counts.sum())

    def write(self, store: StoreSpec, beside: TeacherBeside, at_once: int, ranks: tuple[int, int]) -> UntoldMass:
        """As :class:`SpanCapture`."""
        return capture_turns(store, beside, self.turns, at_once, *ranks)[1]

    def check(self, found: TargetStore) -> None:
        """As :class:`SpanCapture`."""
        found.find([key.tobytes() for key in self.turns.contents.keys])

    def tokens_of_a_batch(self, beside: TeacherBeside, at_once: int) -> int:
        """As :class:`SpanCapture`."""
        return len(numbers_of_turns(beside, self.turns, min(at_once, len(self.turns.samples))).log_p)

    def told(self, found: TargetStore) -> str:
        """As :class:`SpanCapture`."""
        return f"{len(found):,} samples"


def span_captures(work: Work) -> Iterator[tuple[PreparedTeacher, SpanCapture]]:
    """Each teacher with what is captured of it."""
    for number, teacher in enumerate(artifacts.existing_teachers(work)):
        origin = span_provenance(work, teacher, work.step.name)
        if not (work.recipe.chats or work.recipe.asks):
            yield teacher, DocumentCapture(document_blocks(work.run.path("corpus"), teacher), origin)
            continue
        rows: Any = training_data.for_sample_set(work, work.step.name).train
        turns = turns_of_teacher(rows, teacher, number, end_of_turns(work.recipe, teacher))
        yield teacher, TurnCapture(turns, origin)


def turns_of_teacher(rows: Any, teacher: PreparedTeacher, number: int, end: int) -> ReadTurns:
    """What a teacher reads of the training samples.

    Args:
        rows: the samples, a data set with pieces.
        teacher: the teacher.
        number: its place in the recipe.
        end: its token that ends a turn.

    Raises:
        UserError: it teaches none of them.
    """
    places: Sequence[int] = range(len(rows))
    if TEACHERS in rows.column_names:
        places = [place for place, names in enumerate(rows[TEACHERS]) if teacher.name in names]
    if not places:
        raise UserError(f"`teachers.{teacher.name}` teaches none of the {len(rows):,} samples; remove it")
    theirs = TokenBytes(teacher.tokenizer(), f"`teachers.{teacher.name}`")
    return ReadTurns(TeacherSide(rows, number, places), theirs, end)


def span_provenance(work: Work, teacher: PreparedTeacher, sample_set: str | None) -> Provenance:
    """The provenance of a store of spans: of the teacher's own tokens, in its own template.

    Args:
        work: the step.
        teacher: the teacher.
        sample_set: the name of the sample set, of questions.
    """
    recipe, template = work.recipe, "none"
    if isinstance(recipe.corpus, Conversations):
        template = _template(recipe.corpus, teacher).digest
    elif sample_set is not None:
        prompt = recipe.all_strategies[recipe.sample_sets[sample_set].strategy].teacher
        template = template_fingerprint(teacher.tokenizer(), prompt)
    return teacher.provenance(template)


def _template(corpus: Conversations, teacher: PreparedTeacher) -> ChatTemplate:
    return chat_template(teacher.tokenizer(), corpus.model_copy(update={"template": None}))


def end_of_turns(recipe: Recipe, teacher: PreparedTeacher) -> int:
    """The teacher's token that ends a turn or an answer."""
    if not isinstance(recipe.corpus, Conversations):
        return end_token_id(teacher.tokenizer())
    template = _template(recipe.corpus, teacher)
    return int(template.tokenizer.convert_tokens_to_ids(template.end_token))
