"""Teacher tokens: how many tokens a teacher of another tokenizer reads for one of the student's."""

import math
from collections.abc import Mapping
from typing import Any

from potstill.planning.ranges import Range
from potstill.recipe import Recipe
from potstill.recipe.across_tokenizers import crossing_loss

BYTES_PER_TOKEN = {259: 1.0, 4096: 3.0, 16_000: 3.7, 50_000: 4.4}
"""Of English text, by the number of tokens of a byte-level BPE; 16,000: measured on BabyLM. Others lie between them."""
OF_HELD_OUT = 1.03
"""The factor by which the training text may differ from the held-out text, on which the ratio is counted."""


def teacher_tokens(
    recipe: Recipe, made: Mapping[str, Any] | None, measured: Mapping[str, Range]
) -> Mapping[str, Range]:
    """The tokens of each teacher for one of the student's; empty where they have one tokenizer.

    Args:
        recipe: the recipe.
        made: the figures of the finished corpus stage; None before that.
        measured: what was measured on the text, by the teachers' names.
    """
    if crossing_loss(recipe) is None:
        return {}
    made = made or {}
    # Of texts, those that are held out are counted; of conversations, all that are learned.
    counted = {name: _counted(one, "tokens", OF_HELD_OUT) for name, one in made.get("alignment", {}).items()}
    counted |= {name: _counted(one, "reads", 1.0) for name, one in made.get("compared_turns", {}).items()}
    return {name: counted.get(name) or _of_teacher(recipe, measured.get(name)) for name in recipe.teachers}


def _counted(counts: Mapping[str, int], what: str, factor: float) -> Range | None:
    # A run of an earlier version has not counted all of them.
    ours, theirs = counts.get(f"student_{what}"), counts.get(f"teacher_{what}")
    return Range.around(theirs / ours, factor, factor) if ours and theirs else None


def _of_teacher(recipe: Recipe, measured: Range | None) -> Range:
    return measured or bytes_per_token(recipe) / _of_vocabulary(max(BYTES_PER_TOKEN))


def bytes_per_token(recipe: Recipe) -> Range:
    """The bytes of a token of the recipe's tokenizer, as they are assumed without it."""
    return _of_vocabulary(getattr(recipe.tokenizer, "vocab_size", None) or max(BYTES_PER_TOKEN))


def _of_vocabulary(vocabulary: int) -> Range:
    known = sorted(BYTES_PER_TOKEN.items())
    below = max((one for one in known if one[0] <= vocabulary), default=known[0])
    above = min((one for one in known if one[0] >= vocabulary), default=known[-1])
    if below == above:
        return Range.around(below[1], 1.25, 1.25)
    part = math.log(vocabulary / below[0]) / math.log(above[0] / below[0])
    return Range.around(below[1] + part * (above[1] - below[1]), 1.25, 1.25)
