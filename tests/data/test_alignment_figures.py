from collections.abc import Iterable

from potstill.data.aligned_texts import aligned_texts
from potstill.data.alignment_figures import AlignmentFigures
from potstill.data.token_bytes import TokenBytes
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
    assert "41.2% of the held-out text is compared with the teacher, in 2 spans of " in str(found)


def test_no_text_has_no_share() -> None:
    assert figures([]).share == 0
