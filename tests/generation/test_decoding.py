"""Tokens are chosen as transformers defines it, and each response has its own random numbers."""

from dataclasses import replace
from random import Random

import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from potstill.generation.decoding import Decoding, TokenChoice

DRAWN = Decoding(max_new_tokens=3, batch_size=2, temperature=0.7)
ENDS = [0, 4]


def logits(rows, vocabulary=12):
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(5)) * 2


class Fixed:
    """Random numbers that are all the same."""

    def __init__(self, value):
        self.value = value

    def random(self):
        return self.value


def test_without_a_temperature_it_is_the_most_probable_that_may_be_chosen():
    scores = logits(5)
    likeliest = scores.argmax(-1)
    assert torch.equal(TokenChoice(Decoding(3, 2), ENDS, [])(scores, [Random(0)] * 5), likeliest)
    never = likeliest.unique().tolist()
    chosen = TokenChoice(Decoding(3, 2), ENDS, never)(scores, [Random(0)] * 5)
    scores[:, never] = -torch.inf
    assert torch.equal(chosen, scores.argmax(-1))


@pytest.mark.parametrize("limits", [{}, {"top_k": 4}, {"top_p": 0.8}, {"top_k": 6, "top_p": 0.7}])
def test_tokens_are_drawn_as_often_as_transformers_definitions_say(limits):
    scores = logits(1)
    warped = TemperatureLogitsWarper(0.7)(None, scores.index_fill(1, torch.tensor([3]), -torch.inf))
    if "top_k" in limits:
        warped = TopKLogitsWarper(limits["top_k"])(None, warped)
    if "top_p" in limits:
        warped = TopPLogitsWarper(limits["top_p"])(None, warped)
    wanted = warped.softmax(-1)[0]
    # Every random number of an even grid is drawn once, so that a token is drawn as often as its probability says.
    grid = [Fixed((at + 0.5) / 4000) for at in range(4000)]
    drawn = TokenChoice(replace(DRAWN, **limits), ENDS, [3])(scores.expand(4000, -1), grid)
    found = torch.bincount(drawn, minlength=scores.shape[1]) / 4000
    torch.testing.assert_close(found, wanted, rtol=0, atol=1 / 4000)
    assert (found[wanted == 0] == 0).all()


@pytest.mark.parametrize("point", [0.0, 1 - 2**-53])
def test_the_least_and_the_greatest_random_number_draw_a_token_that_may_be_drawn(point):
    scores = torch.full((1, 50), -torch.inf)
    scores[0, 20:30] = 0.0
    drawn = TokenChoice(DRAWN, ENDS, [20, 29])(scores, [Fixed(point)])
    assert drawn.item() == (21 if point == 0 else 28)


def test_random_numbers_are_those_of_the_seed_the_question_and_the_sample():
    keys = [("a", 0), ("a", 1), ("b", 0)]
    choices = [TokenChoice(replace(DRAWN, seed=seed), ENDS, []) for seed in (0, 1)]
    first = [choose.random(key).random() for choose in choices for key in keys]
    assert len(set(first)) == 6
    assert [choose.random(key).random() for choose in choices for key in keys] == first


@pytest.mark.parametrize(("decoding", "taken"), [(DRAWN, 1), (Decoding(3, 2), 0)])
def test_a_row_takes_one_random_number_for_a_token_that_is_drawn(decoding, taken):
    sources, expected = [Random(1), Random(2)], [Random(1), Random(2)]
    TokenChoice(decoding, ENDS, [])(logits(2), sources)
    for one in expected * taken:
        one.random()
    assert [one.random() for one in sources] == [one.random() for one in expected]


def test_a_response_ends_at_an_end_token_or_at_the_limit():
    choose = TokenChoice(DRAWN, ENDS, [])
    assert [choose.is_whole(ids) for ids in ([0], [5, 4], [5, 5, 5])] == [True] * 3
    assert [choose.is_whole(ids) for ids in ([5], [0, 5])] == [False] * 2
