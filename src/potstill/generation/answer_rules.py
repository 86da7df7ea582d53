"""Answer rules: which responses of a teacher may be learned, whatever they answer."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from potstill.errors import UserError
from potstill.generation.generate import Response
from potstill.limits import LimitError, limited
from potstill.recipe.generate import Generate
from potstill.recipe.strategies import MOST_MEMORY, MOST_SECONDS

UNFINISHED = "did not end within `max_new_tokens`"


def fault(one: Response, generate: Generate) -> str | None:
    """Why a response may not be learned; None if it may.

    One that hit the limit of tokens never may, because the student would learn an end where there was none.

    Raises:
        UserError: the regular expression takes too long.
    """
    if one.fault is not None:
        return one.fault
    if one.hit_limit:
        return UNFINISHED
    if not one.response.strip():
        return "is blank"
    if one.tokens < generate.shortest:
        return "is shorter than `shortest`"
    if generate.longest is not None and one.tokens > generate.longest:
        return "is longer than `longest`"
    if generate.matching is not None and not _found(generate.matching, one.response):
        return "does not match `matching`"
    return None


def _found(pattern: str, text: str) -> bool:
    try:
        with limited(MOST_SECONDS, MOST_MEMORY):
            return re.search(pattern, text) is not None
    except LimitError as error:
        raise UserError(f"`generate.matching`: {pattern!r} {error} on an answer; write it more simply") from None


def nearest(responses: Sequence[Response], reference: str) -> Response:
    """The response that is most like the reference by the F1 of ROUGE-L; of equal ones, the first."""
    return max(responses, key=lambda one: _scorer().score(reference, one.response)["rougeL"].fmeasure)


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"])
