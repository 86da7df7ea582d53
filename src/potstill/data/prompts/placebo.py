"""Placebo: samples whose teacher speaks about another question; a student must not gain from them."""

import random
from collections.abc import Sequence

from potstill.data.prompts.collator import AlignedSample
from potstill.errors import UserError


def placebo_samples(samples: Sequence[AlignedSample], longest: int, seed: int = 0) -> list[AlignedSample]:
    """Give each sample the teacher's side of another question: that question's prompt and answer.

    The other answer is cut or repeated to the length of the sample's own answer. The experiment of arXiv:2412.17846
    paired its targets in this way by mistake (`Question 10` came before `Question 2`). A placebo shows how much a
    student gains from a teacher that says something unrelated.

    Args:
        samples: the samples of one strategy.
        longest: the most tokens that the teacher reads.
        seed: decides which questions are exchanged.

    Raises:
        UserError: there is only one question, or no other question leaves room for the answer.
    """
    order = list(range(len(samples)))
    random.Random(seed).shuffle(order)
    found: dict[int, AlignedSample] = {}
    for place, at in enumerate(order):
        others = (samples[other] for other in (*order[place + 1 :], *order[:place]))
        length = len(samples[at]["teacher_input_ids"]) - samples[at]["teacher_answer_start"]
        fits = (
            other
            for other in others
            if other["id"] != samples[at]["id"] and other["teacher_answer_start"] + length <= longest
        )
        partner = next(fits, None)
        if partner is None:
            raise UserError(
                f"{samples[at]['id']}: no other question leaves the teacher room for an answer of {length:,} tokens; "
                "raise `corpus.teacher_length`, or leave out `targets: another_question`"
            )
        start = partner["teacher_answer_start"]
        prompt, answer = partner["teacher_input_ids"][:start], partner["teacher_input_ids"][start:]
        said = (answer * (length // len(answer) + 1))[:length]
        found[at] = {**samples[at], "teacher_input_ids": prompt + said, "teacher_answer_start": start}
    return [found[at] for at in range(len(samples))]
