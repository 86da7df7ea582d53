"""Tokenizers are told apart by what they do, and models of different ones are not compared."""

import copy

import pytest

import tiny
from potstill.text.tokenizers import check_same_tokens, tokenizer_fingerprint
from potstill.words import UserError


@pytest.fixture
def tokenizer():
    return copy.deepcopy(tiny.tokenizer())


class Words:
    """A tokenizer of the slow kind: a vocabulary and nothing else."""

    def __init__(self, **vocabulary):
        self.vocabulary = vocabulary

    def get_vocab(self):
        return self.vocabulary


def test_one_tokenizer_has_one_fingerprint_however_it_was_used(tokenizer, tmp_path):
    before = tokenizer_fingerprint(tokenizer)
    tokenizer(["a", "longer text"], padding=True, truncation=True, max_length=3)
    assert tokenizer_fingerprint(tokenizer) == before
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer_fingerprint(type(tokenizer).from_pretrained(tmp_path)) == before


def test_whatever_changes_ids_changes_the_fingerprint(tokenizer):
    from tokenizers import normalizers

    before = tokenizer_fingerprint(tokenizer)
    more = copy.deepcopy(tokenizer)
    more.add_tokens(["<new>"])
    lower = copy.deepcopy(tokenizer)
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert len({before, tokenizer_fingerprint(more), tokenizer_fingerprint(lower)}) == 3


def test_a_slow_tokenizer_is_told_by_its_vocabulary():
    assert tokenizer_fingerprint(Words(a=0, b=1)) == tokenizer_fingerprint(Words(b=1, a=0))
    assert tokenizer_fingerprint(Words(a=0, b=1)) != tokenizer_fingerprint(Words(a=1, b=0))


def test_the_same_tokens_pass():
    check_same_tokens(Words(a=0, b=1), Words(b=1, a=0), "one", "other")


@pytest.mark.parametrize(
    ("other", "sizes", "difference"),
    [
        ({"a": 0, "b": 1}, "3 and 2 tokens", "'c' is 2 in the one and None in the other"),
        ({"a": 0, "b": 2, "c": 1}, "3 and 3 tokens", "in the other"),
        ({"a": 0, "b": 1, "d": 2}, "3 and 3 tokens", "in the other"),
    ],
)
def test_different_tokens_are_refused_with_both_names_and_the_first_difference(other, sizes, difference):
    with pytest.raises(UserError) as told:
        check_same_tokens(Words(a=0, b=1, c=2), Words(**other), "teachers.big", "student small")
    sentence = str(told.value)
    assert sentence.startswith(f"teachers.big and student small have different tokenizers ({sizes}; ")
    assert difference in sentence
    assert sentence.endswith("; use models of one tokenizer")
