"""Rollout text: how much of what a student wrote a teacher of another tokenizer cannot read."""

from itertools import groupby

from potstill.data.token_bytes import TokenBytes, readable
from potstill.on_policy.rollouts import Rollout


def lost_text(ours: TokenBytes, rollout: Rollout) -> tuple[int, int]:
    """The bytes of a rollout that are no text, and all of its bytes.

    A student may write bytes that are no UTF-8. The teacher reads what stands before them, up to the next special token
    of the student. So they and what follows them are lost.

    Args:
        ours: the bytes of the student's tokens.
        rollout: the rollout.
    """
    ids = [*rollout.prompt.student, *rollout.ids]
    lost = 0
    for is_text, part in groupby(ids, lambda number: bool(ours.each[number])):
        if is_text:
            content = ours.joined(part)
            before, read = readable(content)
            lost += len(content) - before - len(read.encode())
    total = len(ours.joined(rollout.ids))
    return min(lost, total), total
