"""Rollout turns: what teachers of other tokenizers read of an answer that a student wrote, each behind a prompt of its
own.

The text of the answer is compared byte by byte, and its end. A special token within an answer is no text, and what
follows it is not read. Nor is what follows a byte that is no UTF-8.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from potstill.data.compared_turns import ComparedTurns, sample_across
from potstill.data.conversations.render import ChatSample, TurnTokens
from potstill.data.labels import IGNORE_INDEX
from potstill.data.prompts.render import token_ids
from potstill.data.token_bytes import SPACE, TokenBytes, readable
from potstill.data.turns_of_batch import OTHER, PIECES, pieces_of
from potstill.errors import UserError
from potstill.on_policy.prompts import prompt_of
from potstill.on_policy.rollouts import Rollout

NO_END = -1
LEAST_ROOM = 2
"""A teacher reads at least so many tokens of an answer: a prompt that leaves fewer is not answered for it."""


@dataclass(frozen=True)
class AnswerSide:
    """A model that reads answers.

    Args:
        bytes: the bytes of its tokens.
        end: the token that ends an answer; `NO_END` if its end is not compared.
        longest: the most tokens that it reads; None: no limit.
    """

    bytes: TokenBytes
    end: int
    longest: int | None = None


@dataclass(frozen=True)
class RolloutTurns:
    """Makes samples of rollouts, as ``data/compared_turns.py`` makes them of turns.

    Args:
        student: the student.
        teachers: the teachers, in their order.
        is_apart: whether an answer is tokenized apart from its prompt, as an answer to a question is. Else it is
            tokenized with the text before it, as a turn of a conversation is.
    """

    student: AnswerSide
    teachers: Sequence[AnswerSide]
    is_apart: bool

    def prompts(self, sample: Mapping[str, Any], prompt: Sequence[int] | None) -> list[list[int]]:
        """What each teacher reads before the answer that stands behind a student's prompt.

        Args:
            sample: a sample with pieces.
            prompt: the beginning of its `input_ids`, up to a learned answer; None: nothing is learned.

        Returns:
            The prompts of all teachers. One is empty if the teacher does not teach the sample, does not read this
            answer, or reads it otherwise from its first byte on.
        """
        found: list[list[int]] = []
        for number, teacher in enumerate(self.teachers):
            pieces = pieces_of(sample[PIECES][number])
            at = next((piece.other_begin for piece in pieces if piece.begin == len(prompt or ())), None)
            fits = at is not None and (teacher.longest is None or at + LEAST_ROOM <= teacher.longest)
            found.append([*map(int, sample[f"{OTHER}input_ids"][number][:at])] if fits else [])
        return found

    def reads(self, sample: Mapping[str, Any]) -> bool:
        """Whether any teacher reads an answer from where the student begins to write it."""
        return any(self.prompts(sample, prompt_of(np.asarray(sample["input_ids"]), np.asarray(sample["labels"]), 1)))

    def check(self, samples: Iterable[Mapping[str, Any]]) -> None:
        """Refuse samples of which no teacher reads an answer that a student writes.

        Raises:
            UserError: they are such samples, and have teachers.
        """
        taught = 0
        for sample in samples:
            if self.reads(sample):
                return
            taught += any(map(len, sample[PIECES]))
        if taught:
            raise UserError(
                f"`on_policy`: samples with a teacher: {taught:,}; none of them has an answer that the teacher reads "
                "from where the student begins to write it. Their chat templates begin answers otherwise, or the "
                "teacher has no room for them; leave `on_policy` out, or give the tokenizers templates that are alike"
            )

    def columns(self, rollout: Rollout, compared: Sequence[ComparedTurns] | None = None) -> dict[str, Any]:
        """A rollout as student and teachers read it (:func:`sample_across`).

        Args:
            rollout: the rollout, whose prompt has those of the teachers.
            compared: counts bytes for each teacher; None: nothing is counted.
        """
        prompts = rollout.prompt.others
        assert prompts is not None, "turns have prompts of their own for the teachers"
        ids, before = rollout.ids, rollout.prompt.student
        each = self.student.bytes.each
        stop = next((at for at, number in enumerate(ids) if not each[number]), len(ids))
        ended = ids[stop : stop + 1] == [self.student.end]
        content = self.student.bytes.joined(ids[:stop])
        if self.student.bytes.adds_space and content[:1] == SPACE:
            content = content[1:]
        cut, text = readable(content)
        # Text that begins within a character is no beginning that another tokenizer could read.
        text = "" if cut else text
        ended = ended and text.encode() == content
        read = [
            self._read(teacher, prompt, text, ended) if prompt else None
            for teacher, prompt in zip(self.teachers, prompts, strict=True)
        ]
        theirs = [teacher if prompt else None for teacher, prompt in zip(self.teachers, prompts, strict=True)]
        student = _sample(before, ids, len(before) + stop)
        return sample_across(student, read, self.student, theirs, compared)

    def lost_text(self, rollout: Rollout) -> list[tuple[int, int]]:
        """For each teacher that reads a rollout, the bytes of it that are not compared, and all of its bytes."""
        counted = [ComparedTurns() for _ in self.teachers]
        self.columns(rollout, counted)
        total = len(self.student.bytes.joined(rollout.ids))
        assert rollout.prompt.others is not None
        return [
            (total - one.compared, total) for one, prompt in zip(counted, rollout.prompt.others, strict=True) if prompt
        ]

    def _read(self, teacher: AnswerSide, prompt: Sequence[int], text: str, ended: bool) -> ChatSample:
        ids = token_ids(teacher.bytes.tokenizer, text) if self.is_apart else _ids_behind(teacher.bytes, prompt, text)
        if ended and teacher.end != NO_END:
            ids = [*ids, teacher.end]
        room = len(ids) if teacher.longest is None else teacher.longest - len(prompt)
        kept = ids[:room]
        return _sample(prompt, kept, len(prompt) + len(kept))


def _sample(prompt: Sequence[int], ids: Sequence[int], stop: int) -> ChatSample:
    whole, labels = [*prompt, *ids], [IGNORE_INDEX] * len(prompt) + [*ids]
    return ChatSample(whole, labels, (TurnTokens(1, len(prompt), stop),), "", "")


def _ids_behind(tokens: TokenBytes, prompt: Sequence[int], text: str) -> list[int]:
    """The tokens of a text behind a prompt, as the tokenizer makes them of both together.

    Only the prompt's last special token and the text after it matter: a tokenizer divides texts there. If a token
    covers the end of the prompt, which no model could write, the text is tokenized apart.
    """
    begin = len(prompt)
    while begin and tokens.each[prompt[begin - 1]]:
        begin -= 1
    _, before = readable(tokens.joined(prompt[begin:]))
    if before:
        (whole,) = tokens.read([before + text])
        (ends,) = np.nonzero(whole.ends == len(before.encode()))
        if len(ends):
            return whole.ids[ends[-1] + 1 :].tolist()
    elif begin:
        # Some tokenizers put a space of their own before a text, but not behind a special token.
        special, *rest = token_ids(tokens.tokenizer, tokens.tokenizer.convert_ids_to_tokens(prompt[-1]) + text)
        if special == prompt[-1]:
            return rest
    return token_ids(tokens.tokenizer, text)
