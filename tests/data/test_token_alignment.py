"""Spans between two tokenizations, against a search over all pairs of tokens, and on real tokenizers."""

import itertools
import random
import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from jaxtyping import Int

from counted_work import CountedNumpy, counted, work
from potstill.data import token_alignment
from potstill.data.token_alignment import NOWHERE, TextAxis, TextReading, align, common_ends
from potstill.data.token_bytes import TokenBytes, TokenEnds
from tokenizer_zoo import HARD, ZOO, texts

Tokens = list[tuple[int, int, bool, int]]
"""The piece, the end within it (-1 for its opening), whether it is lost, and the row of the prediction after it."""


def reading(axis: TextAxis, tokens: Tokens) -> TextReading:
    ends = [NOWHERE if piece < 0 else axis.openings[piece] + 1 + end for piece, end, _, _ in tokens]
    lost, rows = [token[2] for token in tokens], [token[3] for token in tokens]
    return TextReading(np.array(ends, np.int64), np.array(lost, bool), np.array(rows, np.int64))


def is_word_end(content: bytes, end: int) -> bool:
    between = 0 < end < len(content)
    return end == -1 or (between and content[end : end + 1] == b" " and not content[end - 1 : end].isspace())


def last(tokens: Tokens, piece: int, end: int) -> int | None:
    """The last token that ends there."""
    places = [at for at, token in enumerate(tokens) if token[:2] == (piece, end)]
    return places[-1] if places else None


def searched(pieces: list[bytes], ours: Tokens, theirs: Tokens) -> list[tuple[int, ...]]:
    """The spans by their definition: every pair of places, every token between them."""
    found = []
    for number, content in enumerate(pieces):
        words = [end for end in range(-1, len(content)) if end != 0 and is_word_end(content, end)]
        words = [end for end in words if None not in (last(ours, number, end), last(theirs, number, end))]
        for first, end in itertools.pairwise(words):
            rows = []
            for tokens in (ours, theirs):
                begin, stop = last(tokens, number, first), last(tokens, number, end)
                assert begin is not None
                assert stop is not None
                own = [tokens[at][3] for at in range(begin, stop + 1)]
                whole = NOWHERE not in (own[0], own[-1]) and own == [*range(own[0], own[0] + len(own))]
                rows.append(
                    (own[0], own[-1]) if whole and not any(t[2] for t in tokens[begin + 1 : stop + 1]) else None
                )
            if None not in rows:
                found.append((*rows[0], *rows[1], first == -1))  # type: ignore[misc]
    return found


def searched_pairs(pieces: list[bytes], ours: Tokens, theirs: Tokens) -> list[list[int]]:
    """The pairs by their definition: every place of the text, but for the end of a space that a tokenizer has added."""
    found = []
    for number, content in enumerate(pieces):
        for end in (-1, *range(1, len(content) + 1)):
            one, other = last(ours, number, end), last(theirs, number, end)
            if one is not None and other is not None and NOWHERE not in (ours[one][3], theirs[other][3]):
                found.append([ours[one][3], theirs[other][3]])
    return found


def cut(draw: random.Random, pieces: list[bytes]) -> Tokens:
    """Tokens that end at random bytes; with openings, tokens without bytes, and tokens that are not predicted."""
    tokens: Tokens = []
    row = 0
    for number, content in enumerate(pieces):
        if draw.random() < 0.2:
            tokens.append((-1, 0, False, NOWHERE))
        ends = [-1] if draw.random() < 0.7 else []
        ends += [0] if draw.random() < 0.3 else []
        ends += sorted(draw.choices(range(1, len(content) + 1), k=draw.randint(0, len(content)))) if content else []
        for end in ends:
            predicted = draw.random() < 0.95
            tokens.append((number, end, draw.random() < 0.05, row if predicted else NOWHERE))
            row += predicted
    return tokens


@pytest.mark.parametrize("seed", range(200))
def test_spans_and_pairs_are_those_that_a_search_finds(seed: int) -> None:
    draw = random.Random(seed)
    pieces = ["".join(draw.choices("ab \n é", k=draw.randint(0, 30))).encode() for _ in range(draw.randint(1, 4))]
    ours, theirs = cut(draw, pieces), cut(draw, pieces)
    axis = TextAxis.of(pieces)
    found = align(axis, reading(axis, ours), reading(axis, theirs))
    spans = np.concatenate([found.ours, found.theirs, found.opens[:, None]], 1).tolist()
    assert spans == [list(each) for each in searched(pieces, ours, theirs)]
    assert found.pairs.tolist() == searched_pairs(pieces, ours, theirs)
    assert len(found.follows) == len(spans)
    for (one, other), follows in zip(itertools.pairwise(spans), found.follows[1:].tolist(), strict=True):
        assert follows <= (one[1] == other[0])


def test_pairs_are_predictions_at_the_same_byte() -> None:
    pieces = [b"one two"]
    axis = TextAxis.of(pieces)
    ours = [(0, -1, False, 0), (0, 0, False, 1), (0, 3, False, 2), (0, 5, False, NOWHERE), (0, 7, False, 3)]
    theirs = [(0, -1, False, 0), (0, 1, False, 1), (0, 3, False, 2), (0, 5, False, 3), (0, 7, False, 4)]
    found = align(axis, reading(axis, ours), reading(axis, theirs))
    assert found.pairs.tolist() == [[0, 0], [2, 2], [3, 4]]
    assert found.bytes_in_spans == 3


def test_common_ends_are_of_the_last_token_that_ends_there() -> None:
    one, other = common_ends(9, np.array([0, 0, 3, 5, 5, NOWHERE]), np.array([NOWHERE, 0, 4, 5, 8]))
    assert one.tolist() == [1, 4]
    assert other.tolist() == [1, 3]


def test_a_batch_without_text_has_no_spans() -> None:
    axis = TextAxis.of([])
    none = TextReading(np.array([NOWHERE]), np.array([False]), np.array([NOWHERE]))
    found = align(axis, none, none)
    assert [len(each) for each in found[:5]] == [0] * 5


PAIRS = [*itertools.combinations(ZOO, 2), ("smollm2", "smollm2")]


@pytest.mark.parametrize("names", PAIRS, ids=lambda names: "-".join(names))
def test_spans_of_real_tokenizers_are_the_text_between_words(names: tuple[str, str]) -> None:
    given = [*HARD, *texts(20, seed=1)]
    pieces = [text.encode() for text in given]
    axis = TextAxis.of(pieces)
    sides = [TokenBytes(ZOO[name](), name) for name in names]
    found = [one.read(given) for one in sides]
    readings = [whole_reading(axis, each) for each in found]
    spans = align(axis, *readings)
    assert len(spans.ours) > 60
    places = [span_places(axis, *each) for each in zip(readings, (spans.ours, spans.theirs), strict=True)]
    assert places[0] == places[1]
    # Spans follow one another: in tokens of both sides, and in bytes.
    for each in (spans.ours, spans.theirs):
        assert (each[:, 0] < each[:, 1]).all()
        assert (each[1:, 0] >= each[:-1, 1]).all()
    assert all(stop <= begin for (_, stop), (begin, _) in itertools.pairwise(places[0]))
    # They are the words that both sides give back, but for the last word of each text, and nothing else.
    assert places[0] == [
        (at + 1 + begin, at + 1 + stop)
        for at, content, *each in zip(axis.openings.tolist(), pieces, *found, strict=True)
        for begin, stop in words(content)[:-1]
        if not any(is_lost(one, begin, stop) for one in each)
    ]
    assert spans.bytes_in_spans == sum(stop - begin for begin, stop in places[0])
    for one, each, own in zip(sides, found, (spans.ours, spans.theirs), strict=True):
        ids = [number for text in each for number in (one.tokenizer.all_special_ids[0], *text.ids)]
        for (first, stop), (begin, end) in zip(places[0], own.tolist(), strict=True):
            meant = axis.content[first:stop].tobytes()
            # The tokens join to these bytes, or also to the space that a tokenizer puts before its first word.
            assert one.joined(ids[begin + 1 : end + 1]) in (meant, b" " + meant)
    assert 0.3 < spans.bytes_in_spans / sum(map(len, pieces)) < 1


@pytest.mark.parametrize("names", PAIRS, ids=lambda names: "-".join(names))
def test_pairs_of_real_tokenizers_are_all_places_where_both_end(names: tuple[str, str]) -> None:
    given = [*HARD, *texts(20, seed=1)]
    axis = TextAxis.of([text.encode() for text in given])
    readings = [whole_reading(axis, TokenBytes(ZOO[name](), name).read(given)) for name in names]
    pairs = align(axis, *readings).pairs
    added = axis.openings + 1
    common = {*readings[0].ends.tolist()} & {*readings[1].ends.tolist()} - {*added.tolist()}
    for reading, rows in zip(readings, pairs.T, strict=True):
        assert reading.ends[rows].tolist() == sorted(common)


def whole_reading(axis: TextAxis, found: Sequence[TokenEnds]) -> TextReading:
    """Some texts, each with a token before it, all of which are predicted."""
    ends = [np.append(at, at + 1 + each.ends) for at, each in zip(axis.openings, found, strict=True)]
    lost = np.concatenate([np.append(False, each.lost) for each in found])
    return TextReading(np.concatenate(ends), lost, np.arange(len(lost)))


def span_places(axis: TextAxis, reading: TextReading, spans: Int[np.ndarray, "S 2"]) -> list[tuple[int, int]]:
    """The bytes of spans on the axis, by the tokens of one side."""
    ends, openings = reading.ends.tolist(), {*axis.openings.tolist()}
    return [(ends[first] + (ends[first] in openings), ends[last]) for first, last in spans.tolist()]


def words(content: bytes) -> list[tuple[int, int]]:
    """The words of a text, each with the white space before it."""
    ends = [found.start() for found in re.finditer(rb"(?<=\S)(?= )", content)]
    return [*itertools.pairwise([0, *ends, len(content)])]


def is_lost(text: TokenEnds, begin: int, stop: int) -> bool:
    """Whether a token that does not give its bytes back has some of these bytes."""
    begins, ends = [0, *text.ends[:-1].tolist()], text.ends.tolist()
    return any(
        lost and end > begin and (first < stop or end == stop)
        for first, end, lost in zip(begins, ends, text.lost.tolist(), strict=False)
    )


Batch = tuple[TextAxis, TextReading, TextReading]


def batch_of(repeated: int, joined: bool) -> Batch:
    """Random tokens of a text that is repeated: as one piece, or as pieces after each of which a turn ends."""
    draw = random.Random(0)
    few = ["".join(draw.choices("ab  é\n", k=60)).encode() for _ in range(8)]
    pieces = few * repeated
    axis = TextAxis.of([b"".join(pieces)] if joined else pieces, [True] * (1 if joined else len(pieces)))
    starts = np.cumsum([1, *map(len, pieces[:-1])]) if joined else axis.openings + 1
    sides = []
    for _ in range(2):
        cuts = [np.array([*draw.sample(range(1, len(one)), 20), len(one)]) for one in few] * repeated
        ends = np.concatenate([axis.openings, *(start + cut for start, cut in zip(starts, cuts, strict=True))])
        sides.append(TextReading(np.sort(ends), np.zeros(len(ends), bool), np.arange(len(ends))))
    return axis, *sides


def counted_batch(batch: Batch) -> Batch:
    axis, *sides = batch
    one, other = (TextReading(*map(counted, side)) for side in sides)
    return TextAxis(*(counted(each) for each in (axis.content, axis.openings, axis.closings))), one, other


def growth(monkeypatch: pytest.MonkeyPatch, joined: bool) -> float:
    """By how much the work of the alignment grows, if the text grows eightfold."""
    monkeypatch.setattr(token_alignment, "np", CountedNumpy())
    monkeypatch.setattr(token_alignment, "_WHITE", counted(token_alignment._WHITE))
    small, large = (counted_batch(batch_of(repeated, joined)) for repeated in (4, 32))
    assert len(large[1].ends) > 7 * len(small[1].ends)
    return work(lambda: align(*large)) / work(lambda: align(*small))


@pytest.mark.parametrize("joined", [True, False], ids=["one long text", "many turns"])
def test_work_is_linear_in_the_tokens(monkeypatch: pytest.MonkeyPatch, joined: bool) -> None:
    assert growth(monkeypatch, joined) < 8.5


Found = tuple[Int[np.ndarray, "ends"], Int[np.ndarray, "ends"]]


def all_pairs(places: int, ours: Int[np.ndarray, "n"], theirs: Int[np.ndarray, "m"]) -> Found:
    one, other = np.nonzero(ours[:, None] == theirs[None])
    return one, other


def one_by_one(places: int, ours: Int[np.ndarray, "n"], theirs: Int[np.ndarray, "m"]) -> Found:
    one, other = np.array([(at, int(same.argmax())) for at, end in enumerate(ours) if (same := theirs == end).any()]).T
    return one, other


@pytest.mark.parametrize("search", [all_pairs, one_by_one])
def test_work_that_is_quadratic_is_seen(monkeypatch: pytest.MonkeyPatch, search: Callable[..., Found]) -> None:
    monkeypatch.setattr(token_alignment, "common_ends", search)
    assert growth(monkeypatch, joined=True) > 20
