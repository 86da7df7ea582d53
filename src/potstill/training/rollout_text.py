"""Rollout text: how much of what a student wrote a teacher of another tokenizer cannot read."""

from itertools import groupby

from potstill.data.text_of_batch import TextCollator
from potstill.data.token_bytes import readable
from potstill.on_policy.rollouts import Rollout


def lost_text(text: TextCollator, rollout: Rollout) -> tuple[int, int]:
    """The bytes of a rollout that are no text, and all of its bytes.

    A student may write bytes that are no UTF-8. The teacher reads what stands before them, up to the next special token
    of the student. So they and what follows them are lost.

    Args:
        text: what the teacher reads of a batch.
        rollout: the rollout.
    """
    ids = [*rollout.prompt.student, *rollout.ids]
    lost = 0
    for is_text, part in groupby(ids, lambda number: bool(text.ours.each[number])):
        if is_text:
            content = text.ours.joined(part)
            before, read = readable(content)
            lost += len(content) - before - len(read.encode())
    total = len(text.ours.joined(rollout.ids))
    return min(lost, total), total
