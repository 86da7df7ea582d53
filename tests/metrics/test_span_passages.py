"""A document in pieces: the spans that both models were compared on, and the text between them."""

import pytest
import torch

from potstill.data.token_bytes import TokenBytes
from potstill.losses.span_likelihood import TokenNumbers
from potstill.losses.teacher_target import SpanTarget
from potstill.metrics.span_passages import span_view
from tiny import tokenizer

TOKENS = TokenBytes(tokenizer(), "the student")


def view(used=(True, True), spans=((0, 1), (1, 2), (3, 4)), group=(0, 0, 1), log_q=(-2.0, -1.0)):
    """Five letters, of which the fourth is of no span."""
    labels = torch.tensor([TOKENS.tokenizer.convert_tokens_to_ids(letter) for letter in "abcde"])
    log_p = torch.tensor([-1.0, -0.5, -9.0, -0.25, -9.0], dtype=torch.float64)
    mass = torch.tensor([0.0, -0.1, -0.2, -0.3, -0.4], dtype=torch.float64)
    target = SpanTarget(
        torch.tensor(spans, dtype=torch.int64).reshape(-1, 2),
        torch.zeros(len(spans), dtype=torch.bool),
        torch.tensor(group, dtype=torch.int64),
        torch.tensor([*log_q, 0.0][: len(spans)], dtype=torch.float64),
        torch.tensor([*used, False][: len(spans)]),
        torch.zeros(len(TOKENS.each), dtype=torch.bool),
        len(labels),
    )
    return span_view(target, TokenNumbers(log_p, mass), labels, TOKENS)


def test_joined_spans_are_one_piece_and_text_between_has_no_excess():
    first, between, second, rest = view()
    assert [piece["text"] for piece in (first, between, second, rest)] == ["ab", "c", "d", "e"]
    # -1 - 0.1 - 0 and -0.5 - 0.2 + 0.1: what the tokens say, and the word masses at both ends.
    assert first["student_nll"] == pytest.approx(1.0 + 0.5 + 0.2)
    assert first["excess"] == pytest.approx(1.7 - 2.0)
    assert second["excess"] == pytest.approx(0.25 + 0.4 - 0.3 - 1.0)
    assert between == {"text": "c"}
    assert rest == {"text": "e"}


def test_a_group_that_is_not_used_is_text_alone():
    assert view(used=(False, True))[0] == {"text": "ab"}


def test_a_document_without_spans_is_one_piece():
    assert view(spans=(), group=(), log_q=()) == [{"text": "abcde"}]
