"""Turn scores: the sums of turns are those of their conversation, and the fourth turn and all later ones are one."""

import numpy as np
import pytest

from potstill.metrics.conversations.turn_scores import METRICS, TurnScores, row_of
from potstill.metrics.held_out_text import DocumentScores


def scores(*tokens, conversations=3):
    """The scores of tokens, each a conversation, a turn and its nats."""
    sums = DocumentScores.zeros([0] * 4 * conversations)
    nats = np.array([nll for *_, nll in tokens], float)
    rows = np.array([row_of(conversation, turn) for conversation, turn, _ in tokens])
    sums.add(rows, {"nll": nats, "forward_kl": nats / 2, "agreement": nats > 2})
    return TurnScores(sums)


TOKENS = [(0, 1, 1.0), (0, 1, 3.0), (0, 2, 5.0), (1, 1, 2.0), (2, 1, 1.0), (2, 4, 7.0), (2, 9, 9.0), (1, 5, 4.0)]


@pytest.mark.parametrize(
    ("metric", "numerator", "denominator"),
    [
        ("loss", [9, 6, 17], [3, 2, 3]),
        ("kl_to_teacher", [4.5, 3, 8.5], [3, 2, 3]),
        ("agreement", [2, 1, 2], [3, 2, 3]),
        ("loss/turn 1", [4, 2, 1], [2, 1, 1]),
        ("loss/turn 2", [5], [1]),
        ("kl_to_teacher/turn 4+", [2, 8], [1, 2]),
    ],
)
def test_sums_of_a_metric(metric, numerator, denominator):
    found = scores(*TOKENS).sums(metric)
    np.testing.assert_array_equal(found.numerator, numerator)
    np.testing.assert_array_equal(found.denominator, denominator)


def test_turns_that_one_conversation_has_are_not_told_apart():
    assert scores(*TOKENS).metrics() == [
        *METRICS,
        *("loss/turn 1", "loss/turn 4+", "kl_to_teacher/turn 1", "kl_to_teacher/turn 4+"),
    ]


def test_conversations_of_one_turn_have_no_figures_by_turn():
    assert scores((0, 1, 1.0), (1, 1, 1.0), (2, 2, 1.0)).metrics() == [*METRICS]
