"""Documents become the tokens that the tokenizer's own call gives, in their order."""

import threading
from itertools import islice

import pytest
from transformers import PreTrainedTokenizer

from potstill.data import tokenization
from potstill.data.tokenization import Encoder
from tiny import documents, tokenizer

SEPARATOR = [1]


@pytest.fixture
def texts():
    return [*documents(300, seed=1), "", "é\n", "x" * 3000]


@pytest.mark.parametrize("characters", [1, 500, 10**9])
def test_tokens_are_those_of_the_tokenizer_s_own_call(texts, monkeypatch, characters):
    monkeypatch.setattr(tokenization, "CHARACTERS_AT_ONCE", characters)
    read, done = tokenizer(), []
    expected = [[*SEPARATOR, *read(text, add_special_tokens=False).input_ids] for text in texts]
    # A tokenizer keeps its last truncation and padding.
    read(texts[:2], padding=True, truncation=True, max_length=3)
    assert list(Encoder(read, SEPARATOR).of_documents(texts, done.append)) == expected
    assert sum(done) == len(texts)
    assert list(Encoder(read, SEPARATOR).of_stream(iter(texts))) == expected


class Letters(PreTrainedTokenizer):
    """A tokenizer that is written in Python."""

    vocab_size = 256

    def get_vocab(self):
        return {chr(number): number for number in range(256)}

    def _tokenize(self, text):
        return list(text)

    def _convert_token_to_id(self, token):
        return ord(token)


def test_a_tokenizer_in_python_is_used_too():
    assert list(Encoder(Letters(), SEPARATOR).of_documents(["ab", "c"])) == [[1, 97, 98], [1, 99]]


def test_a_stream_is_not_read_ahead():
    read = []

    def endless():
        while True:
            read.append(None)
            yield "a b"

    tokens = Encoder(tokenizer(), SEPARATOR).of_stream(endless())
    assert len(list(islice(tokens, tokenization.DOCUMENTS_AT_ONCE))) == len(read)


def test_what_fails_in_the_thread_is_raised_and_the_thread_ends(monkeypatch):
    def fails(self, batch):
        raise ZeroDivisionError

    monkeypatch.setattr(Encoder, "encode", fails)
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        list(Encoder(tokenizer(), SEPARATOR).of_documents(["a"]))
    assert threading.active_count() == before


def test_a_reader_that_stops_early_leaves_no_thread():
    before = threading.active_count()
    tokens = Encoder(tokenizer(), SEPARATOR).of_documents(documents(50, seed=1))
    next(tokens)
    tokens.close()
    assert threading.active_count() == before
