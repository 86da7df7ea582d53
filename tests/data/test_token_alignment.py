"""Spans between two tokenizations, against a search over all pairs of tokens, and on real tokenizers."""

import itertools
import random

import numpy as np
import pytest

from potstill.data.token_alignment import NOWHERE, TextAxis, TextReading, align, common_ends
from potstill.data.token_bytes import TokenBytes
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


def searched(pieces: list[bytes], ours: Tokens, theirs: Tokens) -> list[tuple[int, ...]]:
    """The spans by their definition: every pair of places, every token between them."""
    found = []
    for number, content in enumerate(pieces):

        def last(tokens: Tokens, end: int, piece: int = number) -> int | None:
            places = [at for at, token in enumerate(tokens) if token[:2] == (piece, end)]
            return places[-1] if places else None

        words = [end for end in range(-1, len(content)) if end != 0 and is_word_end(content, end)]
        words = [end for end in words if last(ours, end) is not None and last(theirs, end) is not None]
        for first, end in itertools.pairwise(words):
            rows = []
            for tokens in (ours, theirs):
                begin, stop = last(tokens, first), last(tokens, end)
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
def test_spans_are_those_that_a_search_finds(seed: int) -> None:
    draw = random.Random(seed)
    pieces = ["".join(draw.choices("ab \n é", k=draw.randint(0, 30))).encode() for _ in range(draw.randint(1, 4))]
    ours, theirs = cut(draw, pieces), cut(draw, pieces)
    axis = TextAxis.of(pieces)
    found = align(axis, reading(axis, ours), reading(axis, theirs))
    spans = np.concatenate([found.ours, found.theirs, found.opens[:, None]], 1).tolist()
    assert spans == [list(each) for each in searched(pieces, ours, theirs)]
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
    readings, tokens = [], []
    for name in names:
        one = TokenBytes(ZOO[name](), name)
        found = one.read(given)
        ends = np.concatenate(
            [np.append(at, at + 1 + each.ends) for at, each in zip(axis.openings, found, strict=True)]
        )
        lost = np.concatenate([np.append(False, each.lost) for each in found])
        readings.append(TextReading(ends, lost, np.arange(len(ends))))
        tokens.append([one.each[number] for each in found for number in (one.tokenizer.all_special_ids[0], *each.ids)])
    spans = align(axis, *readings)
    assert len(spans.ours) > 60
    covered = 0
    for ours, theirs in zip(spans.ours.tolist(), spans.theirs.tolist(), strict=True):
        first, last = (int(readings[0].ends[at]) for at in ours)
        first += first in axis.openings
        meant = axis.content[first:last].tobytes()
        # Both sides join to these bytes, or also to the space that a tokenizer puts before its first word.
        for each, (begin, end) in zip(tokens, (ours, theirs), strict=True):
            assert b"".join(each[begin + 1 : end + 1]) in (meant, b" " + meant)
        covered += last - first
    assert covered == spans.bytes_in_spans
    kept = sum(map(len, pieces))
    assert 0.3 < spans.bytes_in_spans / kept < 1
