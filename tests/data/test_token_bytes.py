"""The bytes of tokens, on real tokenizers: joined they are the text, and each token ends where they say."""

import itertools
import re

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from potstill.data.token_bytes import SPACE, TokenBytes, TokenEnds, readable
from potstill.errors import UserError
from tokenizer_zoo import HARD, ZOO, babylm, clean_texts, folding, smollm2, stories, texts, trained

ADDS_SPACE = {name: name in ("trained", "babylm", "stories", "spaced_at_first") for name in ZOO}


def check(one: TokenBytes, text: str, found: TokenEnds) -> None:
    """Each token that is not lost has its bytes, and what lies between are the lost bytes."""
    content = text.encode()
    assert found.ids.tolist() == one.tokenizer(text, add_special_tokens=False).input_ids
    bounds = [0, *found.ends.tolist()]
    lost = 0
    for token, lies_lost, (first, last) in zip(found.ids, found.lost, itertools.pairwise(bounds), strict=True):
        own = one.each[token]
        assert first <= last
        if lies_lost:
            lost += last - first
        else:
            assert content[first:last] == own or (first == 0 and SPACE + content[first:last] == own)
    assert bounds[-1] == len(content) or not len(found.ids)
    assert found.lost_bytes == (lost if len(found.ids) else len(content))


@pytest.mark.parametrize("name", ZOO)
def test_every_token_ends_where_its_bytes_end(name: str) -> None:
    one = TokenBytes(ZOO[name](), name)
    given = [*HARD, *texts(60)]
    for text, found in zip(given, one.read(given), strict=True):
        check(one, text, found)
    assert one.adds_space == ADDS_SPACE[name]


@pytest.mark.parametrize("name", ZOO)
def test_clean_texts_are_given_back_whole(name: str) -> None:
    one, given = TokenBytes(ZOO[name](), name), clean_texts(name)
    for text, found in zip(given, one.read(given), strict=True):
        content = text.encode()
        assert (found.lost_bytes, found.lost.any()) == (0, False), text
        assert one.joined(found.ids) in (content, SPACE + content)
        assert found.ends[-1:].tolist() == [len(content)][: len(content)]


@pytest.mark.parametrize("name", ZOO)
def test_no_token_goes_on_over_the_end_of_a_word(name: str) -> None:
    """What the likelihood of spans rests on: a token begins at each space that follows no white space."""
    crossing = [one for one in TokenBytes(ZOO[name](), name).each if re.search(rb"\S ", one)]
    # Of the 262,144 tokens of Gemma 3, one of HTML does.
    assert crossing == ([b"> </"] if name == "gemma" else [])


def test_lost_bytes_are_only_those_that_are_changed() -> None:
    one = TokenBytes(trained(), "trained")
    plain, folded = one.read(["one two three", "one ① three"])
    assert plain.lost_bytes == 0
    # NFKC reads the circled digit as a digit.
    assert folded.lost_bytes == len("①".encode())
    assert folded.lost.tolist() == [False, False, False, True, False]


def test_unknown_characters_and_folded_case_are_lost() -> None:
    one = TokenBytes(folding(), "folding")
    (found,) = one.read(["the river Ω bank"])
    assert found.lost_bytes == len("Ω".encode())
    (found,) = one.read(["the River bank"])
    assert 0 < found.lost_bytes < len("the River bank")


def test_bytes_that_a_tokenizer_does_not_know_are_lost() -> None:
    one = TokenBytes(babylm(), "babylm")
    (found,) = one.read(["one \x00\x01 two"])
    check(one, "one \x00\x01 two", found)


def test_special_tokens_have_no_bytes() -> None:
    for tokenizer in (trained(), stories()):
        one = TokenBytes(tokenizer, "it")
        assert all(one.each[number] == b"" for number in tokenizer.all_special_ids)


def test_special_tokens_in_a_text_are_lost() -> None:
    (found,) = TokenBytes(stories(), "stories").read(["one </s> two"])
    assert found.lost_bytes >= len("</s>")


def test_a_tokenizer_without_bytes_is_refused_by_name() -> None:
    pieces = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    pieces.decoder = decoders.WordPiece()
    with pytest.raises(UserError, match=r"the teacher has a tokenizer whose tokens do not say .*WordPiece"):
        TokenBytes(PreTrainedTokenizerFast(tokenizer_object=pieces), "the teacher")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"whole", (0, "whole")),
        ("é".encode()[1:] + b"nd", (1, "nd")),
        ("a😀".encode()[:-1], (0, "a")),
        ("😀b😀".encode()[2:-3], (2, "b")),
        (b"", (0, "")),
        (b"\x80\x80", (2, "")),
        (b"ok\xffrest", (0, "ok")),
    ],
)
def test_bytes_that_are_cut_within_a_character_are_read_as_far_as_they_are_whole(
    content: bytes, expected: tuple[int, str]
) -> None:
    assert readable(content) == expected


def test_a_tokenizer_that_has_cut_before_reads_whole_texts() -> None:
    tokenizer = smollm2()
    tokenizer("a b c d e f", truncation=True, max_length=2)
    (found,) = TokenBytes(tokenizer, "smollm2").read(["a b c d e f"])
    assert found.ends[-1] == 11
