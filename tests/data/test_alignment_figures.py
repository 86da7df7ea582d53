from potstill.data.alignment_figures import AlignmentFigures, alignment_figures
from potstill.data.token_bytes import TokenBytes
from tiny import documents, tokenizer
from tokenizer_zoo import trained

OURS, THEIRS = TokenBytes(tokenizer(), "the student"), TokenBytes(trained(), "the teacher")


def test_figures_count_what_lies_in_spans():
    found = alignment_figures(["one two three", "four"], OURS, THEIRS)
    # The last word of a text has no end that both models predict.
    assert (found.bytes, found.bytes_in_spans, found.spans) == (17, len("one two"), 2)
    assert (found.lost_by_student, found.lost_by_teacher) == (0, 0)
    assert found.student_tokens == len(tokenizer()("one two").input_ids)
    assert found.teacher_tokens == len(trained()("one two").input_ids)


def test_figures_do_not_depend_on_how_many_texts_are_read_at_once():
    texts = documents(300)
    whole = alignment_figures(texts, OURS, THEIRS)
    alone = AlignmentFigures()
    for text in texts:
        alone.add([text], OURS, THEIRS)
    assert whole == alone
    assert 0.9 < whole.share < 1


def test_lost_bytes_are_counted_by_tokenizer():
    found = alignment_figures(["one \u2460 two three"], OURS, THEIRS)
    assert (found.lost_by_student, found.lost_by_teacher) == (0, 3)
    assert found.bytes_in_spans == len("one two")
    assert "41.2% of the held-out text is compared with the teacher, in 2 spans of " in str(found)


def test_no_text_has_no_share():
    assert alignment_figures([], OURS, THEIRS).share == 0
