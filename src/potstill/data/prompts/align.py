"""Align: one answer behind two prompts, the teacher's and the student's, token for token the same answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from potstill.data.labels import IGNORE_INDEX
from potstill.data.prompts.collator import AlignedSample
from potstill.data.prompts.render import QuestionRow, end_token_id, prompt_ids, token_ids
from potstill.errors import UserError
from potstill.recipe.prompts import Strategy


@dataclass(frozen=True)
class AlignedSampleBuilder:
    """Makes samples of rows: of each row one for each strategy, and all of them with the same answer.

    An answer is tokenized once and apart from any prompt, and its end token follows it. So no token ever covers the end
    of a prompt and the beginning of the answer: the answer's tokens do not depend on what was asked, which is what
    aligns teacher and student, and they begin exactly where a model begins that is given the prompt to go on from. A
    tokenizer that puts a space before every text puts one before the answer too.

    An answer that is too long loses its end, the end token first: what was cut does not end there. It is cut at the
    least room that any of the strategies leaves to student or teacher, so that experiments that are compared learn the
    same tokens. Prompts are never cut.

    Args:
        strategies: by their names in the recipe.
        tokenizer: the student's and the teacher's, which is one, as is its chat template.
        longest: the most tokens of what the student reads.
        teacher_longest: the most tokens of what the teacher reads.
    """

    strategies: Mapping[str, Strategy]
    tokenizer: Any
    longest: int
    teacher_longest: int

    def __call__(self, row: QuestionRow, where: str) -> dict[str, AlignedSample]:
        """The samples of a row, by strategy.

        ``where`` says in an error's sentence which row it is, such as ``train.jsonl, line 7``.

        Raises:
            UserError: there is no answer, a prompt cannot be made, or it leaves no room for the answer.
        """
        answer = self._answer(row, where)
        prompts = {name: self._prompts(name, row, where) for name in self.strategies}
        room = min(
            self._room(prompt, side, name, where)
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
        strategy, key = self.strategies[name], f"prompts.{name}"
        student = prompt_ids(self.tokenizer, strategy.student, row, where, f"{key}.student")
        return student, prompt_ids(self.tokenizer, strategy.teacher, row, where, f"{key}.teacher")

    def _room(self, prompt: list[int], side: str, name: str, where: str) -> int:
        longest = self.longest if side == "student" else self.teacher_longest
        if len(prompt) >= longest:
            raise UserError(
                f"{where}: `prompts.{name}.{side}` makes a prompt of {len(prompt):,} tokens, which leaves nothing of "
                f"the {side}'s {longest:,} to the answer; shorten the template, allow more tokens, or leave the row out"
            )
        return longest - len(prompt)

    def _answer(self, row: QuestionRow, where: str) -> list[int]:
        text = row.get("answer")
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{where}: has no text in `answer`, so there is nothing to learn; leave the row out")
        return [*token_ids(self.tokenizer, text), self._end]

    @cached_property
    def _end(self) -> int:
        return end_token_id(self.tokenizer)
