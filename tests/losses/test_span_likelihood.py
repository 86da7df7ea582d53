"""Two tokenizations of one distribution of texts, whose token models are known exactly."""

import itertools
import random

import pytest
import torch
from torch import Tensor

from potstill.losses.span_likelihood import (
    LEAST_WORD_MASS,
    TokenNumbers,
    joined,
    log_likelihoods,
    span_of_each_row,
)

CHAIN = {"a": {"a": 0.2, "b": 0.5, " ": 0.3}, "b": {"a": 0.6, "b": 0.1, " ": 0.3}, " ": {"a": 0.55, "b": 0.45}}
"""The probability of each next byte after each byte. No text has two spaces in a row."""
BYTES, WORDS = ("a", "b", " "), ("a", "b", "ab", "ba", " ", " a", " ab", " b")
"""Two vocabularies. A text is read by the longest token first."""


def tokens_of(text: str, vocabulary: tuple[str, ...]) -> list[str]:
    found = []
    while text:
        found.append(max((one for one in vocabulary if text.startswith(one)), key=len))
        text = text[len(found[-1]) :]
    return found


def forbidden(token: str, vocabulary: tuple[str, ...]) -> set[str]:
    """The bytes that cannot follow a token: with them, a longer one would have been read."""
    return {one[len(token)] for one in vocabulary if one.startswith(token) and len(one) == len(token) + 1}


def next_tokens(before: str, vocabulary: tuple[str, ...]) -> dict[str, float]:
    """The exact distribution of the token that follows a token."""
    never, chances = forbidden(before, vocabulary), {}
    for token in vocabulary:
        steps = itertools.pairwise(before[-1] + token)
        chance = 1.0
        for one, other in steps:
            chance *= CHAIN[one].get(other, 0.0)
        chance *= sum(p for byte, p in CHAIN[token[-1]].items() if byte not in forbidden(token, vocabulary))
        chances[token] = 0.0 if token[0] in never else chance
    total = sum(chances.values())
    return {token: chance / total for token, chance in chances.items()}


def numbers_and_words(text: str, vocabulary: tuple[str, ...]) -> tuple[TokenNumbers, Tensor]:
    """A model's two numbers at each token but the first, and its spans from one word's end to the next."""
    read = tokens_of(text, vocabulary)
    rows = [next_tokens(token, vocabulary) for token in read[:-1]]
    log_p = torch.tensor([row[token] for row, token in zip(rows, read[1:], strict=True)], dtype=torch.float64).log()
    mass = [sum(p for token, p in row.items() if token[0] == " ") for row in rows]
    ends = [at for at, token in enumerate(read[1:]) if token[0] == " "]
    return TokenNumbers(log_p, torch.tensor(mass, dtype=torch.float64).log()), torch.tensor([*itertools.pairwise(ends)])


def random_text(seed: int, length: int = 300) -> str:
    draw, text = random.Random(seed), "a"
    while len(text) < length:
        text += draw.choices(*zip(*CHAIN[text[-1]].items(), strict=True))[0]
    return text


@pytest.mark.parametrize("seed", range(3))
def test_models_of_one_distribution_give_every_span_one_likelihood(seed: int) -> None:
    text = random_text(seed)
    (ours, our_spans), (theirs, their_spans) = (numbers_and_words(text, each) for each in (BYTES, WORDS))
    assert len(ours.log_p) > len(theirs.log_p)
    assert len(our_spans) == len(their_spans) > 30
    opens = torch.zeros(len(our_spans), dtype=torch.bool)
    one, other = log_likelihoods(our_spans, opens, ours), log_likelihoods(their_spans, opens, theirs)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    # Without the masses, the two models seem to differ.
    bare = [
        log_likelihoods(spans, opens, TokenNumbers(each.log_p, torch.zeros_like(each.log_p)))
        for each, spans in ((ours, our_spans), (theirs, their_spans))
    ]
    assert (bare[0] - bare[1]).abs().max() > 0.1


def test_rows_between_spans_are_of_none() -> None:
    spans = torch.tensor([[0, 2], [2, 3], [5, 7]])
    assert span_of_each_row(spans, 9).tolist() == [0, 0, 1, 3, 3, 2, 2, 3, 3]
    assert span_of_each_row(torch.zeros(0, 2, dtype=torch.int64), 2).tolist() == [0, 0]


def test_an_improbable_end_of_a_word_joins_its_two_spans() -> None:
    spans = torch.tensor([[0, 1], [1, 2], [2, 3], [5, 6], [6, 7]])
    opens = torch.tensor([True, False, False, False, False])
    follows = torch.tensor([False, True, True, False, True])
    likely = torch.full((8,), 0.5)
    likely[2] = likely[5] = LEAST_WORD_MASS / 2
    numbers = TokenNumbers(-torch.arange(1.0, 9.0), likely.log())
    found = joined(spans, opens, follows, numbers)
    # The second and third span are one. The fourth begins at an improbable end, so it is of no group that is used.
    assert found.of_span.tolist() == [0, 1, 1, 2, 3]
    assert found.used.tolist() == [True, True, False, True, False]
    whole = log_likelihoods(torch.tensor([[1, 3]]), torch.tensor([False]), numbers)
    torch.testing.assert_close(found.log_q[1], whole[0])
    first = numbers.log_p[0] + numbers.log_mass[1]
    torch.testing.assert_close(found.log_q[0], first)


def test_there_may_be_no_span() -> None:
    none, flags = torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)
    found = joined(none, flags, flags, TokenNumbers(torch.zeros(3), torch.zeros(3)))
    assert [len(each) for each in found] == [0, 0, 0]


def test_the_end_of_a_turn_is_compared_however_improbable_it_is() -> None:
    spans, opens = torch.tensor([[0, 2], [2, 4]]), torch.tensor([True, False])
    numbers = TokenNumbers(torch.full((5,), -1.0), torch.tensor([0.0, 0.0, -0.1, 0.0, -20.0]))
    follows, closes = torch.tensor([False, True]), torch.tensor([False, True])
    assert joined(spans, opens, follows, numbers).used.tolist() == [True, False]
    found = joined(spans, opens, follows, numbers, closes)
    assert found.used.tolist() == [True, True]
    torch.testing.assert_close(found.log_q, torch.tensor([-2.1, -21.9]))
