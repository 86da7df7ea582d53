"""Alignment: what a teacher of another tokenizer can be compared on, measured on the held-out text."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import accumulate, takewhile
from typing import Any

from datasets import Dataset, load_from_disk

from potstill.console import say
from potstill.data.alignment_figures import MOST_LOST, AlignmentFigures, alignment_figures
from potstill.data.conversations.across import OtherReader
from potstill.data.conversations.conversation import Conversation
from potstill.data.conversations.tally import ChatTally
from potstill.data.token_bytes import TokenBytes
from potstill.errors import UserError
from potstill.models.size import positions_of
from potstill.pipeline import artifacts
from potstill.pipeline.conversation_files import save_samples_across
from potstill.pipeline.work import Work
from potstill.recipe.conversations import Conversations

MEASURED_CHARACTERS = 2**22
"""The held-out text on which the alignment is measured: enough for figures of four digits, and a few seconds."""


def measured_alignment(work: Work) -> dict[str, Any]:
    """The figures of the alignment with each teacher on the held-out text, printed and returned for the summary.

    Raises:
        UserError: a tokenizer does not give back more of the text than can be left out in silence.
    """
    teachers = artifacts.existing_teachers(work)
    ours = TokenBytes(artifacts.tokenizer(work), "`tokenizer`")
    measured: dict[str, Any] = {}
    for teacher in teachers:
        theirs = TokenBytes(teacher.tokenizer(), f"`teachers.{teacher.name}`")
        found = alignment_figures(_texts(load_from_disk(work.folder / "held_out")), ours, theirs)
        for name, lost in ((ours.name, found.lost_by_student), (theirs.name, found.lost_by_teacher)):
            _check_lost(name, lost, found)
        say(f"  {f'{teacher.name}: ' if len(teachers) > 1 else ''}{found}")
        measured[teacher.name] = asdict(found)
    return measured


def save_read_by_both(
    work: Work, corpus: Conversations, conversations: Sequence[Conversation], tally: ChatTally
) -> dict[str, Any]:
    """Save the training samples of conversations that a teacher reads by its own chat template, and print how much of
    them is compared. Returns counts for the summary.

    Raises:
        UserError: nothing is compared, or as ``conversation_files.save_samples_across``.
    """
    (teacher,) = artifacts.existing_teachers(work)
    longest = positions_of(teacher.config().get_text_config())
    theirs = TokenBytes(teacher.tokenizer(), f"`teachers.{teacher.name}`")
    reader = OtherReader(TokenBytes(artifacts.tokenizer(work), "`tokenizer`"), theirs, longest)
    written, compared = save_samples_across(work.folder / "train", conversations, reader, corpus, tally)
    if written:
        say(f"  {compared.told(theirs.name)}")
    return {"train_samples": written, "compared_turns": asdict(compared)}


def _texts(held_out: Dataset) -> Iterator[str]:
    lengths = accumulate(map(len, held_out["text"]))
    first = sum(1 for _ in takewhile(lambda total: total <= MEASURED_CHARACTERS, lengths))
    return iter(held_out[: max(first, 1)]["text"])


def _check_lost(name: str, lost: int, found: AlignmentFigures) -> None:
    if lost > MOST_LOST * found.bytes:
        share = f"{lost / found.bytes:.1%} ({lost:,} of {found.bytes:,} bytes)"
        raise UserError(
            f"{name} does not give back {share} of the held-out text, and at most {MOST_LOST:.0%} can be left out: its "
            "tokenizer changes the text or does not know some of its characters, so its model reads another text; use "
            "another tokenizer, or other text"
        )
