import pytest

from potstill.data.compared_turns import ComparedTurns
from potstill.data.token_bytes import TokenBytes
from potstill.errors import UserError
from tiny import tokenizer
from tokenizer_zoo import folding, trained


def test_templates_that_write_turns_otherwise_are_named():
    with pytest.raises(UserError, match=r"nothing of 1,200 learned bytes is the same text for big: .* templates"):
        ComparedTurns(learned=1200).told(teacher="big")


def test_the_share_is_of_the_learned_bytes_whatever_the_words_are():
    told = ComparedTurns(bytes=50, bytes_in_spans=70, learned=100, compared=75).told()
    assert told.startswith("75.0% of the learned text is compared with the teacher, in 0 spans")


def test_words_that_a_tokenizer_does_not_give_back_are_counted():
    found, words = ComparedTurns(), ["one \u2460 two", "Three"]
    found.add_words(words, TokenBytes(tokenizer(), "the student"), TokenBytes(trained(), "the teacher"))
    assert (found.bytes, found.lost_by_student, found.lost_by_teacher) == (len("one 123 two") + 5, 0, 3)
    found.add_words(["one"], TokenBytes(folding(), "the student"), TokenBytes(tokenizer(), "the teacher"))
    assert (found.bytes, found.lost_by_student) == (len("one 123 two") + 5 + 3, 0)
    found.add_words(["ONE"], TokenBytes(folding(), "the student"), TokenBytes(tokenizer(), "the teacher"))
    assert (found.lost_by_student, found.lost_by_teacher) == (3, 3)
