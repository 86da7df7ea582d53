"""Alignment: what a teacher of another tokenizer can be compared on, measured on the held-out text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate, takewhile
from typing import Any

from datasets import Dataset, load_from_disk

from potstill.console import say
from potstill.data.aligned_texts import aligned_texts
from potstill.data.alignment_figures import HELD_OUT_TEXT, AlignmentFigures
from potstill.data.compared_turns import LEARNED_TEXT, ComparedTurns
from potstill.data.conversations.across import OtherReaders, OtherTeacher
from potstill.data.conversations.conversation import Conversation
from potstill.data.conversations.tally import ChatTally
from potstill.data.prompts.across import AnswerReader
from potstill.data.token_bytes import TokenBytes
from potstill.data.worst_aligned import WorstAligned
from potstill.models.size import positions_of
from potstill.pipeline import artifacts
from potstill.pipeline.conversation_files import save_samples_across
from potstill.pipeline.row_teachers import TaughtCounts
from potstill.pipeline.work import Work
from potstill.recipe.conversations import Conversations
from potstill.recipe.questions import Questions
from potstill.recipe.row_rules import teaches_by_row
from potstill.recipe.section import MOST_AT_ONCE

MEASURED_CHARACTERS = 2**22
"""The held-out text on which the alignment is measured: enough for figures of four digits, and a few seconds."""
STUDENT = "`tokenizer`"
"""The name of the student's tokenizer in messages."""


def measured_alignment(work: Work) -> dict[str, Any]:
    """The figures of the alignment with each teacher on the held-out text, printed and returned for the summary.

    The places that are aligned worst are printed too: no model has run yet that could tell which are the hardest.

    Raises:
        UserError: a tokenizer does not give back more of the text than can be left out in silence.
    """
    teachers = artifacts.existing_teachers(work)
    ours = TokenBytes(artifacts.tokenizer(work), STUDENT)
    measured: dict[str, Any] = {}
    for teacher in teachers:
        theirs = TokenBytes(teacher.tokenizer(), f"`teachers.{teacher.name}`")
        found, worst = AlignmentFigures(), WorstAligned(ours, theirs)
        for some in aligned_texts(_texts(load_from_disk(work.folder / "held_out")), ours, theirs):
            found.add(some)
            worst.add(some)
        say(f"  {f'{teacher.name}: ' if len(teachers) > 1 else ''}{found.told(HELD_OUT_TEXT)}")
        for line in worst.told():
            say(f"    {line}")
        found.check_lost(ours.name, theirs.name, HELD_OUT_TEXT)
        measured[teacher.name] = asdict(found)
    return measured


def save_read_by_all(
    work: Work,
    corpus: Conversations,
    conversations: Sequence[Conversation],
    tally: ChatTally,
    counted: TaughtCounts | None = None,
) -> dict[str, Any]:
    """Save the training samples of conversations that teachers read by their own chat templates, and print how much of
    them is compared. Returns counts for the summary.

    Raises:
        UserError: as :func:`compared_turns`, or as ``conversation_files.save_samples_across``.
    """
    teachers = other_teachers(work)
    names = [*teachers] if teaches_by_row(work.recipe) else None
    readers = OtherReaders(TokenBytes(artifacts.tokenizer(work), STUDENT), [*teachers.values()], names)
    written, compared = save_samples_across(work.folder / "train", conversations, readers, corpus, tally, counted)
    return {"train_samples": written, **(compared_turns(teachers, compared) if written else {})}


def other_teachers(work: Work) -> dict[str, OtherTeacher]:
    """The teachers of other tokenizers, by name."""
    return {
        one.name: OtherTeacher(
            TokenBytes(one.tokenizer(), f"`teachers.{one.name}`"), positions_of(one.config().get_text_config())
        )
        for one in artifacts.existing_teachers(work)
    }


def answer_readers(work: Work) -> dict[str, AnswerReader]:
    """The same as they read questions: as much as `corpus.teacher_length` says, or else all that they can."""
    assert isinstance(work.recipe.corpus, Questions)
    given = work.recipe.corpus.teacher_length
    return {
        name: AnswerReader(one.bytes, min(one.longest or MOST_AT_ONCE, given or MOST_AT_ONCE))
        for name, one in other_teachers(work).items()
    }


def compared_turns(
    teachers: Mapping[str, OtherTeacher | AnswerReader], compared: Sequence[ComparedTurns]
) -> dict[str, dict[str, dict[str, int]]]:
    """Print how much of the learned turns or answers is compared with each teacher. Returns it for the summary.

    Raises:
        UserError: a tokenizer does not give back more of the text than can be left out in silence, or nothing is
            compared with one of them.
    """
    for teacher, counted in zip(teachers.values(), compared, strict=True):
        counted.check_lost(STUDENT, teacher.bytes.name, LEARNED_TEXT)
        say(f"  {counted.told(teacher=teacher.bytes.name)}")
    return {"compared_turns": {name: asdict(one) for name, one in zip(teachers, compared, strict=True)}}


def _texts(held_out: Dataset) -> Iterator[str]:
    lengths = accumulate(map(len, held_out["text"]))
    first = sum(1 for _ in takewhile(lambda total: total <= MEASURED_CHARACTERS, lengths))
    return iter(held_out[: max(first, 1)]["text"])
