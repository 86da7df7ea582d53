"""Passages with made-up figures, of one tokenizer and of two."""

import math

import numpy as np

from potstill.report.data import Passage, Token

WORDS = (" the", " a", ",", " in", " of", " river", " France", ".", " and", " is", "\n", " to", " it", " from", " 1")


def passage(title: str, text: str, seed: int) -> Passage:
    random = np.random.default_rng(seed)
    pieces, start = [], 0
    while start < len(text):
        end = start + 1
        while end < len(text) and text[end].isalnum() and text[end - 1 : end].isascii() and end - start < 9:
            end += 1
        pieces.append(text[start:end])
        start = end
    merged: list[str] = []
    for piece in pieces:
        if merged and merged[-1] == " " and piece.strip():
            merged[-1] += piece
        else:
            merged.append(piece)
    tokens = [Token(merged[0])]
    for piece in merged[1:]:
        kl = float(random.gamma(1.1, 1.5))
        nll = float(random.gamma(1.5, 1.2))
        own = float(max(0.01, nll + random.normal(kl * 0.6, 0.5)))
        tokens.append(Token(piece, kl, own, nll, top5(random, piece, nll), top5(random, piece, own)))
    return Passage(title, tuple(tokens))


def span_passage(title: str, text: str, seed: int) -> Passage:
    """A passage of two tokenizers: some words are joined, and the last is not compared."""
    random, pieces, words = np.random.default_rng(seed), list[str](), text.split(" ")
    while words:
        taken = min(int(random.integers(1, 3)), len(words))
        pieces.append(" " * bool(pieces) + " ".join(words[:taken]))
        words = words[taken:]
    spans = []
    for piece in pieces[:-1]:
        theirs, excess = float(random.gamma(1.5, 3.0)), float(random.normal(1.0, 2.0))
        spans.append(Token(piece, None, max(0.0, theirs + excess), theirs, excess=excess))
    return Passage(title, (*spans, Token(pieces[-1])))


def top5(random: np.random.Generator, actual: str, nll: float) -> tuple[tuple[str, float], ...]:
    others = [str(word) for word in random.choice(WORDS, 6, replace=False) if word != actual][:5]
    chances = sorted(random.dirichlet([0.6] * 6)[:5] * (1 - math.exp(-nll)), reverse=True)
    found = [(word, float(chance)) for word, chance in zip(others, chances, strict=True)] + [(actual, math.exp(-nll))]
    return tuple(sorted(found, key=lambda pair: -pair[1])[:5])
