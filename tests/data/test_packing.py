"""Layouts drop only the tokens that they promise to drop."""

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.data.packing import LAYOUTS, Sample, TokenizedDocument, first_tokens, packed, padded, windows

DOCUMENTS = st.lists(st.lists(st.integers(0, 9), max_size=40), max_size=12)
LENGTH = st.integers(2, 9)


def joined(lists):
    return [token for tokens in lists for token in tokens]


@given(DOCUMENTS, LENGTH)
def test_packed_loses_nothing_but_the_tail(documents, length):
    samples = list(packed(map(TokenizedDocument, documents), length))
    assert {len(sample.input_ids) for sample in samples} <= {length}
    everything = joined(documents)
    assert joined(sample.input_ids for sample in samples) == everything[: len(everything) - len(everything) % length]


@given(DOCUMENTS, LENGTH)
def test_a_packed_sample_knows_its_documents(documents, length):
    cut = []
    for sample in packed(map(TokenizedDocument, documents), length):
        assert sum(sample.documents) == length
        assert min(sample.documents) > 0
        cut += sample.documents
    # A cut between samples cuts a document in two; joined again, the pieces have the documents' lengths.
    ends, whole = set(accumulate(cut)), list(accumulate(map(len, documents)))
    assert ends == {end for end in whole if 0 < end <= sum(cut)} | set(range(length, sum(cut) + 1, length))


def test_packed_reads_no_further_than_it_must():
    def endless():
        while True:
            yield [1, 2, 3]

    samples = packed(map(TokenizedDocument, endless()), 2)
    assert [next(samples) for _ in range(4)] == [
        Sample([1, 2], [2]),
        Sample([3, 1], [1, 1]),
        Sample([2, 3], [2]),
        Sample([1, 2], [2]),
    ]


@given(DOCUMENTS, LENGTH)
def test_padded_keeps_the_beginning_of_every_document_that_predicts_anything(documents, length):
    samples = list(padded(map(TokenizedDocument, documents), length))
    assert [sample.input_ids for sample in samples] == [tokens[:length] for tokens in documents if len(tokens) > 1]
    assert all(sample.documents == [len(sample.input_ids)] for sample in samples)


@given(DOCUMENTS, LENGTH, st.integers(1, 60), st.booleans(), st.sampled_from(sorted(LAYOUTS)))
def test_limited_samples_have_as_many_supervised_tokens_as_fit(documents, length, limit, apart, layout):
    every = list(LAYOUTS[layout](map(TokenizedDocument, documents), length))
    kept = list(first_tokens(every, limit, apart))
    assert kept == every[: len(kept)]
    counts = [sample.supervised(apart) for sample in every]
    assert sum(counts[: len(kept)]) <= limit
    assert len(kept) == len(every) or sum(counts[: len(kept) + 1]) >= limit
    assert list(first_tokens(every, None, apart)) == every


def test_the_first_token_of_what_is_read_at_once_is_not_supervised():
    sample = Sample([1, 2, 3, 4, 5], [2, 3])
    assert sample.supervised(apart=False) == 4
    assert sample.supervised(apart=True) == 3


@given(st.lists(st.integers(), min_size=1, max_size=60, unique=True), LENGTH)
def test_windows_predict_every_token_but_the_first_exactly_once(tokens, length):
    cut = windows(tokens, length)
    assert joined(window[1:] for window in cut) == tokens[1:]
    assert all(len(window) <= length for window in cut)
    # Each predicted token follows the same token as in the document.
    pairs = [pair for window in cut for pair in pairwise(window)]
    assert pairs == list(pairwise(tokens))


@pytest.mark.parametrize("tokens", [[], [7]])
def test_a_document_that_predicts_nothing_has_one_window_of_itself(tokens):
    assert windows(tokens, 4) == [tokens]


def test_the_recipe_knows_the_same_layouts():
    from potstill.recipe.corpus import Corpus

    assert set(LAYOUTS) == set(Corpus.model_json_schema()["properties"]["layout"]["enum"])
