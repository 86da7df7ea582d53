"""Places that are aligned worst: which they are, and what is told of them."""

import itertools

import pytest

from potstill.data.aligned_texts import aligned_texts
from potstill.data.token_bytes import TokenBytes
from potstill.data.worst_aligned import MOST_CHARACTERS, MOST_TOKENS, SHOWN, AlignedPlace, WorstAligned, between_spans
from tiny import documents, tokenizer
from tokenizer_zoo import HARD, ZOO, texts, trained

OURS, THEIRS = TokenBytes(tokenizer(), "the student"), TokenBytes(trained(), "the teacher")


def worst(texts: list[str]) -> WorstAligned:
    found = WorstAligned(OURS, THEIRS)
    for some in aligned_texts(texts, OURS, THEIRS):
        found.add(some)
    return found


def test_the_longest_span_and_the_longest_text_between_spans_come_first() -> None:
    found = worst(["one two https://example.org/a/b/c three", "four ①②③④⑤ five six"])
    assert [one.content for one in found.spans] == [b" https://example.org/a/b/c", b" five"]
    lost, last = found.not_compared
    # What the teacher's tokenizer changes, and the last word of a text, which has no end that both models predict.
    assert lost.content.decode() == " ①②③④⑤"
    assert last.content == b" three"
    assert b"".join(lost.ours) == lost.content
    assert b"".join(lost.theirs) == b" 12345"
    assert [b"".join(side) for side in (last.ours, last.theirs)] == [b" three"] * 2


def test_places_of_the_first_word_have_the_space_that_a_tokenizer_adds() -> None:
    (place,) = worst(["word"]).not_compared
    assert (place.content, b"".join(place.ours), b"".join(place.theirs)) == (b"word", b"word", b" word")


def test_the_same_text_is_shown_once() -> None:
    found = worst(["the letters arrive late and the letters arrive late"] * 40)
    assert [one.content for one in found.spans] == [b" letters", b" arrive"]
    assert [one.content for one in found.not_compared] == [b" late"]


def test_it_does_not_depend_on_how_many_texts_are_read_at_once() -> None:
    texts = documents(300)
    whole, alone = worst(texts), WorstAligned(OURS, THEIRS)
    for text in texts:
        for some in aligned_texts([text], OURS, THEIRS):
            alone.add(some)
    for of_whole, of_alone in ((whole.spans, alone.spans), (whole.not_compared, alone.not_compared)):
        assert [len(one.content) for one in of_whole] == [len(one.content) for one in of_alone]
        assert len(of_whole) == SHOWN


@pytest.mark.parametrize("names", itertools.combinations(ZOO, 2), ids="-".join)
def test_spans_and_what_lies_between_them_are_the_whole_text(names: tuple[str, str]) -> None:
    ours, theirs = (TokenBytes(ZOO[name](), name) for name in names)
    (found,) = aligned_texts([*HARD, *texts(20)], ours, theirs)
    axis, places = found.axis.content.tobytes(), [*between_spans(found).tolist(), *found.span_bytes.tolist()]
    # An empty place stands before a span that begins where it does.
    assert b"".join(axis[first:stop] for first, stop in sorted(places)) == b"".join(found.contents)


def test_what_is_told_fits_on_lines_and_moves_no_cursor() -> None:
    told = list(AlignedPlace("é\n\x1b[2J".encode(), ["é".encode()[:1]], [b" a"] * 20).told())
    assert told[0] == r"7 bytes: 'é\n\x1b[2J'"
    assert told[1] == r"  student, 1 tokens: b'\xc3'"
    assert told[2] == "  teacher, 20 tokens: " + "' a' " * MOST_TOKENS + "…"
    (line, *_) = AlignedPlace(b"a" * 500, [], []).told()
    assert line == f"500 bytes: '{'a' * MOST_CHARACTERS}'…"


def test_nothing_is_told_of_no_text() -> None:
    assert list(worst([]).told()) == []
    assert [line for line in worst(["one two"]).told() if not line.startswith("  ")] == [
        "the longest texts that are not compared:",
        "the longest spans:",
    ]
