from potstill.data.aligned_texts import aligned_texts
from potstill.data.token_bytes import TokenBytes
from tiny import documents, tokenizer
from tokenizer_zoo import trained

OURS, THEIRS = TokenBytes(tokenizer(), "the student"), TokenBytes(trained(), "the teacher")


def test_the_bytes_of_spans_are_words() -> None:
    (found,) = aligned_texts(["one two three", " four  five\nsix seven", ""], OURS, THEIRS)
    axis = found.axis.content.tobytes()
    spans = [axis[first:stop] for first, stop in found.span_bytes.tolist()]
    assert spans == [b"one", b" two", b" four", b"  five\nsix"]


def test_every_text_is_read_once_and_in_order() -> None:
    texts = documents(600)
    found = list(aligned_texts(iter(texts), OURS, THEIRS))
    assert len(found) > 1
    assert [content.decode() for some in found for content in some.contents] == texts
    assert [len(some.ours) for some in found] == [len(some.contents) for some in found]
    assert list(aligned_texts([], OURS, THEIRS)) == []
