"""Story model: a stand-in of stories260K, llama2.c's model of 260K parameters, with its sizes and made-up weights."""

import random
import struct
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from math import prod

import numpy as np

from potstill.rehearsal.words import paragraph
from potstill.teachers.llama2c import BYTES, HEADER, Llama2cShape

SHAPE = Llama2cShape(hidden=64, inner=172, layers=5, heads=8, kv_heads=4, vocabulary=512, positions=512, tied=True)
"""The sizes in the published file's header."""
SPREAD = 0.02
"""The standard deviation of the weights, as transformers draws a Llama's."""


def story_model_files() -> Iterator[tuple[str, bytes]]:
    """The model and its tokenizer: their names in the repository, and their content."""
    yield "stories260K/stories260K.bin", _model()
    yield "stories260K/tok512.bin", _tokenizer()


def _model() -> bytes:
    draw = np.random.default_rng(0)
    sizes = (SHAPE.hidden, SHAPE.inner, SHAPE.layers, SHAPE.heads, SHAPE.kv_heads, SHAPE.vocabulary, SHAPE.positions)
    blocks = [
        np.ones(prod(block)) if name.endswith("norm") else draw.normal(0, SPREAD, prod(block))
        for name, block in SHAPE.blocks.items()
    ]
    return HEADER.pack(*sizes) + np.concatenate(blocks).astype("<f4").tobytes()


def _tokenizer() -> bytes:
    """Special tokens, bytes, and pairs of letters of made-up text; the score of a frequent pair is the higher."""
    text = paragraph(random.Random(2), 3000)
    letters = [letter for letter, _ in Counter(text).most_common()]
    pairs = [f"{one}{other}" for (one, other), _ in Counter(pairwise(text)).most_common()]
    pieces = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{byte:02X}>" for byte in range(BYTES))]
    # sentencepiece puts what was merged before the single letters.
    pieces += [*pairs[: SHAPE.vocabulary - len(pieces) - len(letters)], *letters]
    scored = [(piece.encode(), -float(number)) for number, piece in enumerate(pieces)]
    rows = b"".join(struct.pack("<fi", score, len(piece)) + piece for piece, score in scored)
    return struct.pack("<i", max(len(piece) for piece, _ in scored)) + rows
