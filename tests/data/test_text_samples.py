"""Texts become tokens as TRL's SFTTrainer makes them."""

import pytest

from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX
from potstill.data.text_samples import TextReader
from potstill.errors import UserError
from tiny import tokenizer

END = 0
TALK = [{"role": "user", "content": "where?"}, {"role": "assistant", "content": "here"}]


def ids(text):
    return tokenizer()(text)["input_ids"]


@pytest.mark.parametrize("text", ["the old river bank", "the old river bank<|endoftext|>", ""])
def test_a_text_ends_with_the_end_token_once(text):
    found = TextReader(tokenizer())({"text": text})["input_ids"]
    assert found == [*ids(text.removesuffix("<|endoftext|>")), END]


def test_texts_are_cut_to_the_length_that_is_given():
    assert (
        TextReader(tokenizer(), max_length=3)({"text": "the old river bank"})["input_ids"] == ids("the old river")[:3]
    )


def test_the_text_may_be_in_another_column():
    assert TextReader(tokenizer(), "content")({"content": "a"})["input_ids"] == [*ids("a"), END]


def test_of_a_prompt_with_its_completion_only_the_completion_is_learned():
    sample = TextReader(tokenizer())({"prompt": "the old river", "completion": " bank crosses"})
    whole, prompt = [*ids("the old river bank crosses"), END], len(ids("the old river"))
    assert sample["input_ids"] == whole
    batch = Collator(1)([sample])
    assert batch["labels"][0].tolist() == [IGNORE_INDEX] * prompt + whole[prompt:]


def test_a_token_over_the_seam_is_learned():
    # "th" + "e" is one token, which the prompt alone does not have.
    sample = TextReader(tokenizer())({"prompt": "a th", "completion": "e bank"})
    assert sample["input_ids"] == [*ids("a the bank"), END]
    alone = ids("a th")
    assert alone != sample["input_ids"][: len(alone)]
    shared = sample["completion_mask"].index(1)
    assert sample["input_ids"][:shared] == alone[:shared]
    assert all(sample["completion_mask"][shared:])


def test_tokens_stay_as_they_are():
    sample = {"input_ids": [5, 6], "text": "the"}
    assert TextReader(None)(sample) is sample


@pytest.mark.parametrize(
    ("sample", "told"),
    [
        ({"messages": TALK}, "`messages` .* conversation.*not from a stream"),
        ({"prompt": TALK[:1], "completion": TALK[1:]}, "`prompt` .* conversation.*not from a stream"),
        ({"prompt": "why?"}, "no `completion`"),
        ({"text": None}, "no column that is not null"),
        ({"text": 5}, "`text` of a sample must be a text, not int"),
        ({"text": ["a"]}, "`text` of a sample must be a text, not list"),
        ({"content": "a"}, "only `content`; give tokens as `input_ids`, or texts as `text`"),
        ({}, "no column"),
        (("a",), "a sample is a tuple"),
        ("a", "a sample is a str"),
        ({"text": "the old river bank " * 9}, "the student reads at most 16; give `max_length=16`"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_what_to_do(sample, told):
    with pytest.raises(UserError, match=told) as error:
        TextReader(tokenizer(), positions=16)(sample)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("sample", [{"text": "a"}, {"prompt": "a", "completion": "b"}])
def test_texts_need_a_tokenizer(sample):
    with pytest.raises(UserError, match="`processing_class`"):
        TextReader(None)(sample)


@pytest.mark.parametrize("length", [0, 1, -3, "5", 2.5])
def test_a_length_that_leaves_nothing_to_learn_is_refused(length):
    with pytest.raises(UserError, match="`max_length`"):
        TextReader(tokenizer(), max_length=length)
