"""Across: one answer behind the prompts of a student and of teachers, each with a tokenizer and a chat template of its
own.

The answer is compared byte by byte, and its end: the token that ends an answer of the one is that of the other
(``data/compared_turns.py``). Prompts are read and not compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from potstill.data.compared_turns import ComparedTurns, sample_across
from potstill.data.conversations.render import ChatSample, TurnTokens
from potstill.data.labels import IGNORE_INDEX
from potstill.data.prompts.align import room_after, text_of_answer
from potstill.data.prompts.render import QuestionRow, end_token_id, prompt_ids, token_ids
from potstill.data.row_teachers import TEACHERS, named
from potstill.data.token_bytes import TokenBytes
from potstill.recipe.strategies import Prompt, Strategy


@dataclass(frozen=True)
class AnswerReader:
    """A model that reads a prompt and an answer.

    Args:
        bytes: the bytes of its tokens.
        longest: the most tokens that it reads.
    """

    bytes: TokenBytes
    longest: int

    @cached_property
    def end(self) -> int:
        """The id of the token that ends an answer."""
        return end_token_id(self.bytes.tokenizer)

    def sample(self, prompt: Sequence[int], answer: str, room: int, where: str) -> ChatSample:
        """An answer, which is learned, behind a prompt, which is not. What has no room is cut."""
        kept = [*token_ids(self.bytes.tokenizer, answer), self.end][:room]
        ids, labels = [*prompt, *kept], [IGNORE_INDEX] * len(prompt) + kept
        return ChatSample(ids, labels, (TurnTokens(1, len(prompt), len(ids)),), where, where)


@dataclass(frozen=True)
class AcrossSampleBuilder:
    """Makes the sample of a row for one strategy, as :class:`AlignedSampleBuilder` does where all have one tokenizer.

    An answer that is too long loses its end, for each model by itself. All strategies cut it at the same place: the
    least room that any of them leaves to the model. What the student has lost, or the teacher, is not compared.

    Args:
        strategies: those in use, by their names in the recipe.
        strategy: the name of the sample's own.
        student: the student.
        teachers: the teachers, in their order.
        names: their names, if each teaches only the rows that name it in their column `teachers`; None: each teaches
            every row.
    """

    strategies: Mapping[str, Strategy]
    strategy: str
    student: AnswerReader
    teachers: Sequence[AnswerReader]
    names: Sequence[str] | None = None
    compared: list[ComparedTurns] = field(init=False)
    """The bytes of the answers, and what of them is compared, for each teacher."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "compared", [ComparedTurns() for _ in self.teachers])

    def __call__(self, row: QuestionRow, where: str) -> dict[str, Any]:
        """The sample of a row.

        ``where`` names the row in messages, such as ``train.jsonl, line 7``.

        Raises:
            UserError: there is no answer, a prompt cannot be made, or it leaves no room for the answer.
        """
        given = row.get(TEACHERS)
        teachers = [
            one if self.names is None or self.names[at] in (given or ()) else None
            for at, one in enumerate(self.teachers)
        ]
        student = self._sample(self.student, "student", row, where)
        read = [None if one is None else self._sample(one, "teacher", row, where) for one in teachers]
        (answer,), text = student.turns, text_of_answer(row, where)
        for teacher, counted in zip(teachers, self.compared, strict=True):
            if teacher is not None:
                counted.add_words([text], self.student.bytes, teacher.bytes)
        whole = len(token_ids(self.student.bytes.tokenizer, text)) + 1
        return {
            "id": str(row.get("id", where)),
            **sample_across(student, read, self.student, teachers, self.compared),
            "answer_start": answer.start,
            "answer_cut": whole - (answer.stop - answer.start),
            **(named(given) if self.names is not None else {}),
        }

    def _sample(self, reader: AnswerReader, side: str, row: QuestionRow, where: str) -> ChatSample:
        prompts: dict[str, list[int]] = {}
        for name, strategy in self.strategies.items():
            prompt: Prompt = getattr(strategy, side)
            prompts[name] = prompt_ids(reader.bytes.tokenizer, prompt, row, where, f"strategies.{name}.{side}")
        room = min(room_after(ids, reader.longest, f"strategies.{name}.{side}", where) for name, ids in prompts.items())
        return reader.sample(prompts[self.strategy], text_of_answer(row, where), room, where)
