"""Captured spans: what a teacher reads and leaves, where a capture keeps the spans of whole documents."""

from typing import Any

from potstill.models.size import positions_of
from potstill.planning.jobs import ReadingJob, Situation, reading_of
from potstill.planning.models import PlannedModel
from potstill.planning.ranges import Range
from potstill.planning.teacher_tokens import BYTES_PER_TOKEN, bytes_per_token
from potstill.targets.codecs.registry import estimate
from potstill.targets.codecs.spans import SpanCodec
from potstill.teachers.capture_spans import BLOCK, CONTEXT, LONGEST

READ_AGAIN = Range(1.0, 1.1, 1.0 + CONTEXT / 500)
"""By which factor a teacher reads more tokens than the documents have: those before a block are read again."""
BYTES_OF_BLOCK = Range(200, 1500, BLOCK)
"""Of text: a document has a block of its own, however short it is."""
TOKENS_OF_BLOCK = BLOCK / 2.5
"""Of a teacher, at the most that is likely."""


def span_amounts(at: Situation, name: str) -> tuple[Range, Range] | None:
    """The tokens that a teacher reads of all training documents, and their blocks; None where that is not known yet.

    They are counted by the stage `corpus`. Before that, they follow from the student's tokens.
    """
    counted = at.amounts.spans.get(name)
    if counted is not None:
        return Range.exactly(counted["tokens"]), Range.exactly(counted["blocks"])
    if at.amounts.tokens is None:
        return None
    text = at.amounts.tokens * bytes_per_token(at.recipe)
    largest = BYTES_PER_TOKEN[max(BYTES_PER_TOKEN)]
    return text / Range.around(largest, 1.25, 1.25), text / BYTES_OF_BLOCK


def reading_of_spans(at: Situation, model: PlannedModel) -> ReadingJob:
    """The forward of a teacher whose spans are captured."""
    capture, found = at.recipe.capture, span_amounts(at, model.name)
    assert capture is not None
    tokens = None if found is None else found[0] * READ_AGAIN * (1 / at.ranks)
    longest = min(LONGEST, positions_of(model.config.get_text_config()) or LONGEST, CONTEXT + TOKENS_OF_BLOCK)
    return reading_of(at, model, tokens, capture.batch_size, longest)


def bytes_of_spans(at: Situation, model: PlannedModel) -> Range | None:
    """The bytes of a store of spans; None where that is not known yet."""
    found, codec = span_amounts(at, model.name), SpanCodec(BLOCK, CONTEXT, LONGEST)
    if found is None:
        return None
    sizes: Any = zip(*(one.to_list() for one in found), strict=True)
    return Range(*(float(estimate(codec, round(tokens), round(blocks)).total_bytes) for tokens, blocks in sizes))
