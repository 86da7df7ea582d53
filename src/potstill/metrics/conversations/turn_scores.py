"""Turn scores: how well a model predicts the assistant's turns of conversations, in all and by the turn's number.

Shapes: U conversations.
"""

from dataclasses import dataclass, replace

import numpy as np

from potstill.metrics.bootstrap import Sums
from potstill.metrics.conversations.turns import BY_TURN, TURNS
from potstill.metrics.held_out_text import DocumentScores, TaughtScores

METRICS = ("loss", "kl_to_teacher", "agreement", "perplexity")


def row_of(conversation: int, turn: int) -> int:
    """The place of a turn in the sums of :class:`TurnScores`; conversations count from 0, and turns from 1."""
    return conversation * len(TURNS) + min(turn, len(TURNS)) - 1


@dataclass(frozen=True)
class TurnScores:
    """The sums of one model over each group of turns of each of U conversations."""

    each: DocumentScores | TaughtScores
    """At the places of :func:`row_of`: [4 U]."""

    def sums(self, metric: str) -> Sums:
        """Numerator and denominator of a metric for each conversation.

        `metric` may end in a group of turns, such as `loss/turn 1`: then only for those that have such a turn.
        """
        name, _, turns = metric.partition("/")
        sums = self.each.sums(name)
        numerator, denominator = (np.reshape(values, (-1, len(TURNS))) for values in (sums.numerator, sums.denominator))
        if not turns:
            return replace(sums, numerator=numerator.sum(1), denominator=denominator.sum(1))
        at, there = TURNS.index(turns), denominator[:, TURNS.index(turns)] > 0
        return replace(sums, numerator=numerator[there, at], denominator=denominator[there, at])

    def metrics(self) -> list[str]:
        """All metrics. Groups of turns of fewer than two conversations have none, and neither has a single group."""
        there = np.count_nonzero(np.reshape(self.each.tokens, (-1, len(TURNS))), axis=0)
        groups = [name for name, conversations in zip(TURNS, there, strict=True) if conversations > 1]
        return [*METRICS, *(f"{name}/{turns}" for name in BY_TURN for turns in groups if len(groups) > 1)]
