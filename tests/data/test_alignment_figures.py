from collections.abc import Iterable

import pytest

from potstill.data.aligned_texts import aligned_texts
from potstill.data.alignment_figures import AlignmentFigures
from potstill.data.token_bytes import TokenBytes
from potstill.errors import UserError
from tiny import documents, tokenizer
from tokenizer_zoo import trained

OURS, THEIRS = TokenBytes(tokenizer(), "the student"), TokenBytes(trained(), "the teacher")


def figures(texts: Iterable[str]) -> AlignmentFigures:
    found = AlignmentFigures()
    for some in aligned_texts(texts, OURS, THEIRS):
        found.add(some)
    return found


def test_figures_count_what_lies_in_spans() -> None:
    found = figures(["one two three", "four"])
    # The last word of a text has no end that both models predict.
    assert (found.bytes, found.bytes_in_spans, found.spans) == (17, len("one two"), 2)
    assert (found.lost_by_student, found.lost_by_teacher) == (0, 0)
    assert found.student_tokens == len(tokenizer()("one two").input_ids)
    assert found.teacher_tokens == len(trained()("one two").input_ids)


def test_figures_do_not_depend_on_how_many_texts_are_read_at_once() -> None:
    texts = documents(300)
    whole = figures(texts)
    alone = AlignmentFigures()
    for text in texts:
        (one,) = aligned_texts([text], OURS, THEIRS)
        alone.add(one)
    assert whole == alone
    assert 0.9 < whole.share < 1


def test_lost_bytes_are_counted_by_tokenizer() -> None:
    found = figures(["one \u2460 two three"])
    assert (found.lost_by_student, found.lost_by_teacher) == (0, 3)
    assert found.bytes_in_spans == len("one two")
    told = found.told("the held-out text", "big")
    assert told.startswith("41.2% of the held-out text is compared with big, in 2 spans of ")
    assert told.endswith(" of the teacher, and of 17 bytes the teacher's tokens do not give back 3")


def test_what_both_lose_is_told_and_nothing_where_nothing_is_lost():
    found = AlignmentFigures(bytes=1234, lost_by_student=5, lost_by_teacher=7)
    lost = "the student's tokens do not give back 5 and the teacher's tokens do not give back 7"
    assert found.lost == f", and of 1,234 bytes {lost}"
    assert AlignmentFigures(bytes=1234).lost == ""
    assert AlignmentFigures(bytes=1234).told("it").endswith("of the teacher")


@pytest.mark.parametrize(("side", "name"), [("lost_by_student", "ours"), ("lost_by_teacher", "theirs")])
def test_a_hundredth_may_be_lost_and_no_byte_more(side, name):
    AlignmentFigures(bytes=1000, **{side: 10}).check_lost("ours", "theirs", "the text")
    told = rf"the tokens of {name} do not give back 1.1% of the text \(11 of 1,000 bytes\), and at most 1% can be left"
    with pytest.raises(UserError, match=told):
        AlignmentFigures(bytes=1000, **{side: 11}).check_lost("ours", "theirs", "the text")


def test_no_text_loses_nothing():
    AlignmentFigures().check_lost("ours", "theirs", "the text")


def test_no_text_has_no_share() -> None:
    assert figures([]).share == 0
