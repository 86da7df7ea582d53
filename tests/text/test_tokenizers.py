"""Tokenizers are made, told apart by what they do, and models of different ones are not compared."""

import copy
from pathlib import Path

import pytest

import tiny
from potstill.recipe.tokenizer import TokenizerFile, TrainedTokenizer
from potstill.text.tokenizers import check_same_tokens, read_tokenizer, tokenizer_fingerprint, train_tokenizer
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


def test_a_trained_tokenizer_loses_nothing_and_has_its_roles():
    trained = train_tokenizer(tiny.documents(), TrainedTokenizer(vocab_size=320))
    assert len(trained) == 320
    assert [trained.pad_token_id, trained.bos_token_id, trained.eos_token_id] == [0, 1, 2]
    text = "the river Ж 🦊 never seen"
    ids = trained(text, add_special_tokens=False).input_ids
    assert trained.decode(ids) == " " + text, "a space before the first word, and every byte kept"
    assert trained("a\ufb01b").input_ids == trained("afib").input_ids, "NFKC"


def test_a_tokenizer_knows_its_training_text_only():
    one, other = (train_tokenizer([text * 20], TrainedTokenizer(vocab_size=262)) for text in ("abcabc ", "xyzxyz "))
    assert one.get_vocab() != other.get_vocab()


@pytest.mark.parametrize("texts", [[], ["", " \n"]])
def test_no_tokenizer_is_trained_on_nothing(texts):
    with pytest.raises(UserError, match="there is no training text to train a tokenizer on"):
        train_tokenizer(texts, TrainedTokenizer(vocab_size=300))


def test_a_vocabulary_that_the_text_does_not_support_is_refused():
    told = (
        r"`tokenizer.vocab_size` is 16,000, but the training text yields only \d+ tokens that occur 2 times; lower it"
    )
    with pytest.raises(UserError, match=told):
        train_tokenizer(["too little text"], TrainedTokenizer(vocab_size=16000))


def test_a_file_is_read_as_it_is(tmp_path):
    trained = train_tokenizer(tiny.documents(), TrainedTokenizer(vocab_size=300, eos_token="<end>"))
    file = tmp_path / "tokenizer.json"
    trained.backend_tokenizer.save(str(file))
    found = read_tokenizer(TokenizerFile(file=str(file), eos_token="<end>"))
    assert tokenizer_fingerprint(found) == tokenizer_fingerprint(trained)
    assert found.eos_token_id == 2
    with pytest.raises(UserError, match=r"`tokenizer.eos_token`: .* has no token '</s>'; name one that it has"):
        read_tokenizer(TokenizerFile(file=str(file)))
    file.write_text("{}")
    with pytest.raises(UserError, match=r"`tokenizer.file`: .* is no tokenizer.json"):
        read_tokenizer(TokenizerFile(file=str(file)))


def test_the_published_tokenizer_encodes_as_published():
    file = Path(__file__).parents[3] / "shared" / "data" / "babylm_10m" / "authors_tokenizer.json"
    if not file.is_file():
        pytest.skip(f"{file} is not here")
    found = read_tokenizer(TokenizerFile(file=str(file)))
    ids = found("The quick brown fox jumps over the lazy dog.").input_ids
    assert ids == [295, 1993, 4629, 9277, 366, 8876, 574, 210, 12889, 2415, 16]
    assert len(found) == 16000
