"""Splitting: the text of each document alone decides whether it is held out."""

from math import sqrt

from hypothesis import given
from hypothesis import strategies as st

from potstill.data.splitting import split_documents
from potstill.data.stored_texts import TaughtText

TEXTS = st.lists(st.text(min_size=1), unique=True, max_size=30)
SHARE = st.floats(0.01, 0.99)


@given(TEXTS, TEXTS, SHARE, st.randoms())
def test_a_text_is_on_the_same_side_whatever_else_is_there_and_in_whatever_order(ours, others, share, shuffled):
    alone = split_documents(map(TaughtText, ours), share)
    crowd = [*ours, *others, *ours]
    shuffled.shuffle(crowd)
    among = split_documents(map(TaughtText, crowd), share)
    assert set(alone.train) == set(among.train) & set(ours)
    assert set(alone.held_out) == set(among.held_out) & set(ours)


@given(TEXTS, SHARE, st.randoms())
def test_the_order_of_the_corpus_changes_nothing(texts, share, shuffled):
    before = split_documents(map(TaughtText, texts), share)
    shuffled.shuffle(texts)
    after = split_documents(map(TaughtText, texts), share)
    assert (list(after.train), list(after.held_out)) == (list(before.train), list(before.held_out))


@given(st.lists(st.text(min_size=1, max_size=2)), SHARE)
def test_every_text_is_on_one_side_once(texts, share):
    split = split_documents(map(TaughtText, texts), share)
    assert sorted([*split.train, *split.held_out]) == sorted(set(texts))
    assert split.repeated == len(texts) - len(set(texts))


@given(TEXTS, SHARE, SHARE)
def test_a_larger_share_holds_out_what_a_smaller_one_did_and_more(texts, one, other):
    small, large = sorted((one, other))
    few, many = (split_documents(map(TaughtText, texts), share).held_out for share in (small, large))
    assert set(few) <= set(many)


def test_the_share_is_right_within_sampling_error():
    texts = [f"document {n}" for n in range(20_000)]
    for share in (0.02, 0.5):
        held_out = len(split_documents(map(TaughtText, texts), share).held_out)
        assert abs(held_out - share * len(texts)) < 4 * sqrt(len(texts) * share * (1 - share))


def test_the_side_is_part_of_the_format():
    # Another hash would move documents between training and held-out, and earlier figures would not be comparable.
    held_out = split_documents([TaughtText(f"document {n}") for n in range(20)], 0.2).held_out
    assert list(held_out) == [f"document {n}" for n in (13, 14, 17, 2, 10)]
