"""Align: put the same answer tokens behind the teacher's prompt and behind the student's prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from potstill.data.labels import IGNORE_INDEX
from potstill.data.prompts.collator import AlignedSample
from potstill.data.prompts.render import QuestionRow, end_token_id, prompt_ids, token_ids
from potstill.errors import UserError
from potstill.recipe.strategies import Strategy


@dataclass(frozen=True)
class AlignedSampleBuilder:
    """Makes samples from a row: one sample for each strategy, all with the same answer tokens.

    The answer is tokenized once, apart from any prompt, and its end token follows. So no token covers the end of a
    prompt and the beginning of the answer. The answer's tokens do not depend on the prompt, which aligns teacher and
    student. They begin at the position where a model that is given the prompt begins to write. A tokenizer that puts a
    space before every text puts one before the answer too.

    An answer that is too long loses its end, first of all the end token, because a cut answer does not end there. All
    strategies cut it at the same place: the least room that any strategy leaves to student or teacher. So experiments
    that are compared learn the same tokens. Prompts are never cut.

    Args:
        strategies: by their names in the recipe.
        tokenizer: the tokenizer, with its chat template, that student and teacher share.
        longest: the most tokens that the student reads.
        teacher_longest: the most tokens that the teacher reads.
    """

    strategies: Mapping[str, Strategy]
    tokenizer: Any
    longest: int
    teacher_longest: int

    def __call__(self, row: QuestionRow, where: str) -> dict[str, AlignedSample]:
        """The samples of a row, by strategy.

        ``where`` names the row in messages, such as ``train.jsonl, line 7``.

        Raises:
            UserError: there is no answer, a prompt cannot be made, or it leaves no room for the answer.
        """
        answer = [*token_ids(self.tokenizer, text_of_answer(row, where)), self._end]
        prompts = {name: self._prompts(name, row, where) for name in self.strategies}
        longest = {"student": self.longest, "teacher": self.teacher_longest}
        room = min(
            room_after(prompt, longest[side], f"strategies.{name}.{side}", where)
            for name, both in prompts.items()
            for side, prompt in zip(("student", "teacher"), both, strict=True)
        )
        kept = answer[:room]
        return {
            name: AlignedSample(
                id=str(row.get("id", where)),
                input_ids=student + kept,
                labels=[IGNORE_INDEX] * len(student) + kept,
                answer_start=len(student),
                teacher_input_ids=teacher + kept,
                teacher_answer_start=len(teacher),
                answer_cut=len(answer) - len(kept),
            )
            for name, (student, teacher) in prompts.items()
        }

    def _prompts(self, name: str, row: QuestionRow, where: str) -> tuple[list[int], list[int]]:
        strategy, key = self.strategies[name], f"strategies.{name}"
        student = prompt_ids(self.tokenizer, strategy.student, row, where, f"{key}.student")
        return student, prompt_ids(self.tokenizer, strategy.teacher, row, where, f"{key}.teacher")

    @cached_property
    def _end(self) -> int:
        return end_token_id(self.tokenizer)


def room_after(prompt: Sequence[int], longest: int, key: str, where: str) -> int:
    """The number of tokens that a prompt leaves to the answer.

    Args:
        prompt: its tokens.
        longest: the most tokens that its reader reads.
        key: the prompt's key in the recipe, which ends in its reader: `student` or `teacher`.
        where: names the row in messages.

    Raises:
        UserError: it leaves none.
    """
    if len(prompt) >= longest:
        raise UserError(
            f"{where}: `{key}` makes a prompt of {len(prompt):,} tokens, which leaves no room for the answer in the "
            f"{key.rpartition('.')[2]}'s {longest:,}; shorten the template, allow more tokens, or leave the row out"
        )
    return longest - len(prompt)


def text_of_answer(row: QuestionRow, where: str) -> str:
    """The answer of a row.

    Raises:
        UserError: there is none.
    """
    text = row.get("answer")
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{where}: has no text in `answer`, so there is nothing to learn; leave the row out")
    return text
