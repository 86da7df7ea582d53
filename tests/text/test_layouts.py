"""Layouts lose nothing but what they say they lose."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.text.layouts import LAYOUTS, packed, padded, windows

DOCUMENTS = st.lists(st.lists(st.integers(0, 9), max_size=40), max_size=12)
LENGTH = st.integers(2, 9)


def joined(lists):
    return [token for tokens in lists for token in tokens]


@given(DOCUMENTS, LENGTH)
def test_packed_loses_nothing_but_the_tail(documents, length):
    samples = list(packed(documents, length))
    assert {len(sample) for sample in samples} <= {length}
    everything = joined(documents)
    assert joined(samples) == everything[: len(everything) - len(everything) % length]


def test_packed_reads_no_further_than_it_must():
    def endless():
        while True:
            yield [1, 2, 3]

    samples = packed(endless(), 2)
    assert [next(samples) for _ in range(4)] == [[1, 2], [3, 1], [2, 3], [1, 2]]


@given(DOCUMENTS, LENGTH)
def test_padded_keeps_the_beginning_of_every_document_that_predicts_anything(documents, length):
    assert list(padded(documents, length)) == [tokens[:length] for tokens in documents if len(tokens) > 1]


@given(st.lists(st.integers(), min_size=1, max_size=60, unique=True), LENGTH)
def test_windows_predict_every_token_but_the_first_exactly_once(tokens, length):
    cut = windows(tokens, length)
    assert joined(window[1:] for window in cut) == tokens[1:]
    assert all(len(window) <= length for window in cut)
    # The token before each predicted one is the one that stood before it.
    pairs = [pair for window in cut for pair in pairwise(window)]
    assert pairs == list(pairwise(tokens))


@pytest.mark.parametrize("tokens", [[], [7]])
def test_a_document_that_predicts_nothing_has_one_window_of_itself(tokens):
    assert windows(tokens, 4) == [tokens]


def test_the_recipe_knows_the_same_layouts():
    from potstill.recipe.corpus import Corpus

    assert set(LAYOUTS) == set(Corpus.model_json_schema()["properties"]["layout"]["enum"])
