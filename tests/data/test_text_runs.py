"""Runs give back the bytes of a document that a sample's tokens are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.data.packing import TokenizedDocument, packed, padded
from potstill.data.stored_texts import hash_of
from potstill.data.text_runs import RUN, TEXT_RUNS, DocumentTokens, column_of, runs_of_sample
from potstill.data.token_bytes import TokenBytes
from potstill.errors import UserError
from tiny import documents, tokenizer
from tokenizer_zoo import ZOO, texts

OURS = TokenBytes(tokenizer(), "the student")


def check(runs, ids, content, bytes_of):
    """Each run's tokens are its bytes; with the space that a tokenizer has put before the text, one byte more."""
    for run in runs:
        own = bytes_of.joined(ids[int(run["token"]) : int(run["token"] + run["tokens"])])
        meant = content[int(run["begin"]) : int(run["end"])]
        assert own == meant or (run["begin"] == 0 and own == b" " + meant)
        assert run["document"].tobytes() == hash_of(content.decode())


@pytest.mark.parametrize("name", ZOO)
def test_every_part_of_a_document_says_which_bytes_it_is(name):
    bytes_of, draw = TokenBytes(ZOO[name](), name), np.random.default_rng(0)
    for text, tokens in zip(texts(60, seed=4), bytes_of.read(texts(60, seed=4)), strict=True):
        document, ids = DocumentTokens.of(text, tokens, 1), [0, *tokens.ids.tolist()]
        first, last = sorted(draw.integers(0, len(ids) + 1, 2).tolist())
        runs = document.runs(first, last, 7)
        check(runs, [0] * 7 + ids[first:last], text.encode(), bytes_of)
        covered = sum(runs["tokens"].tolist())
        kept = tokens.lost[max(first - 1, 0) : max(last - 1, 0)]
        assert covered <= (~kept).sum(), "no token that gives other bytes is in a run"


@given(st.integers(2, 40), st.booleans())
def test_samples_of_both_layouts_say_their_text(length, is_packed):
    given_texts = documents(6, seed=1)
    read = [
        DocumentTokens.of(text, tokens, 1) for text, tokens in zip(given_texts, OURS.read(given_texts), strict=True)
    ]
    ids = [[0, *tokens.ids.tolist()] for tokens in OURS.read(given_texts)]
    tokenized = [TokenizedDocument(own, (), text) for own, text in zip(ids, read, strict=True)]
    contents = {hash_of(text): text.encode() for text in given_texts}
    found = {key: bytearray(len(content)) for key, content in contents.items()}
    for sample in (packed if is_packed else padded)(tokenized, length):
        runs = np.frombuffer(column_of(sample.runs), RUN)
        assert sum(runs["tokens"].tolist()) == sum(one != 0 for one in sample.input_ids)
        for run in runs:
            check([run], sample.input_ids, contents[run["document"].tobytes()], OURS)
            found[run["document"].tobytes()][int(run["begin"]) : int(run["end"])] = b"x" * int(
                run["end"] - run["begin"]
            )
    if is_packed:
        assert set(b"".join(found.values()).rstrip(b"\0")) <= {ord("x")}, "only the last sample may be missing"


def test_a_sample_of_text_is_the_beginning_of_a_document():
    text = documents(1)[0]
    (tokens,) = OURS.read([text])
    ids = np.array([*tokens.ids[:9].tolist(), 0])
    (run,) = runs_of_sample({"text": text}, ids, OURS, "text")
    assert (run["token"], run["tokens"], run["begin"], run["end"]) == (0, 9, 0, tokens.ends[8])
    pair = {"prompt": text[:20], "completion": text[20:]}
    assert np.array_equal(runs_of_sample(pair, ids, OURS, "text"), np.array([run]))
    assert np.array_equal(runs_of_sample({TEXT_RUNS: np.array([run]).tobytes()}, ids, OURS, "text"), np.array([run]))


def test_tokens_without_their_text_are_refused():
    with pytest.raises(UserError, match=r"a sample has tokens and no `text_runs`; give samples of `text`"):
        runs_of_sample({"input_ids": [3, 4]}, np.array([3, 4]), OURS, "text")
    with pytest.raises(UserError, match="a sample's tokens are not those of its text"):
        runs_of_sample({"text": documents(1)[0]}, np.array([3, 4]), OURS, "text")
