"""Words: made-up English for stand-ins of texts and questions, the same on every machine."""

import random
from collections.abc import Iterator
from functools import cache

ONSETS = (*"bcdfghjklmnprstvwyz", "", "br", "ch", "dr", "fl", "gr", "pl", "qu", "sc", "sh", "sp", "st", "th", "tr")
VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ee", "oa", "ou")
CODAS = ("", "ck", "d", "g", "l", "ll", "m", "n", "nd", "ng", "p", "r", "rt", "s", "st", "t", "x")
COMMON = ("the", "of", "and", "a", "to", "in", "is", "was", "it", "for", "with", "as", "his", "on", "they", "at", "but")
LEXICON = 12_000
"""Enough words for a tokenizer of some ten thousand tokens."""


@cache
def lexicon() -> tuple[str, ...]:
    """Distinct words, the common ones first."""
    draw, found = random.Random(0), dict.fromkeys(COMMON)
    while len(found) < LEXICON:
        syllables = draw.choices((1, 2, 3), (2, 4, 3))[0]
        parts = (draw.choice(ONSETS) + draw.choice(VOWELS) + draw.choice(CODAS) for _ in range(syllables))
        found["".join(parts)] = None
    return tuple(found)


def sentence(draw: random.Random) -> str:
    """A sentence of 5 to 14 words; some have a comma, a number or a name."""
    words = [_word(draw) for _ in range(draw.randint(5, 14))]
    if draw.random() < 0.3:
        words[draw.randrange(1, 4)] += ","
    if draw.random() < 0.2:
        words[-2] = str(draw.randint(2, 2000))
    if draw.random() < 0.3:
        words[2] = draw.choice(lexicon()).capitalize()
    return " ".join(words).capitalize() + draw.choices(".?!", (8, 1, 1))[0]


def paragraph(draw: random.Random, sentences: int) -> str:
    """Several sentences on one line."""
    return " ".join(sentence(draw) for _ in range(sentences))


def every_word(draw: random.Random) -> Iterator[str]:
    """Sentences in which each word of the lexicon stands twice, so that a tokenizer can learn it."""
    words = [*lexicon(), *lexicon()]
    draw.shuffle(words)
    for first in range(0, len(words), 10):
        yield " ".join(words[first : first + 10]).capitalize() + "."


def _word(draw: random.Random) -> str:
    # A few words are frequent and most are rare, as in a language.
    return draw.choice(COMMON) if draw.random() < 0.4 else lexicon()[int(LEXICON ** draw.random()) - 1]
