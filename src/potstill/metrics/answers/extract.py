r"""The final answer of a response, by the four rules of arXiv 2412.17846 in their order, and its verdict.

If a rule finds no number, the next rule is tried. If a rule finds a number whose value would be a guess (see
``numbers.py``), the search ends and a person decides: a weaker rule must not overrule the place of the answer. A person
also decides if no rule finds a number. Values are exact, and equal in every spelling: ``1,000``, ``1000.0`` and
``$1000``; ``1/2`` and ``0.5``; ``50%`` and 50, because a percent sign is a unit.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from potstill.errors import UserError
from potstill.metrics.answers.numbers import Number, numbers, same

AnswerVerdict = Literal["correct", "wrong", "no answer", "needs review"]

BLANK = "blank"
"""The rule's name for a blank response: there is nothing that a person could decide."""
REVIEW = "review"
"""The rule's name for a response that no rule settles, until a person decides."""

# If a program read the backslash and the b of \boxed as an escape, a backspace is in their place.
BOX = re.compile(r"(?:\\b|\x08|\bb?)oxed\s*\{")
ANSWER_IS = re.compile(r"\bthe\s+(?:(?:final|correct)\s+)*answer\s+is\b", re.IGNORECASE)


@dataclass(frozen=True)
class Extracted:
    """A response's answer: the rule that settled it, its value, and the text that it was read from.

    ``value`` is None if there is no answer (``rule`` is "blank", or a person's decision) or if it is not known
    (``rule`` is "review"; ``text`` is then the unreadable number, or "").
    """

    rule: str
    value: Fraction | None
    text: str


def boxed(response: str) -> Number | None:
    r"""The number in the first ``\boxed{}`` that has exactly one value; of an equation, the right side counts."""
    for box in _boxes(response):
        found = list(numbers(re.split("[=≈]", box)[-1]))
        if same(found):
            return found[0]
    return None


def first_line(response: str) -> Number | None:
    """The number on the first line, if all numbers there are equal."""
    found = list(numbers(response.strip().split("\n", 1)[0]))
    return found[0] if same(found) else None


def answer_is(response: str) -> Number | None:
    """The first number after "the [final/correct] answer is", in upper or lower case."""
    phrase = ANSWER_IS.search(response)
    return next(numbers(response[phrase.end() :]), None) if phrase else None


def last_number(response: str) -> Number | None:
    """The last number in the response."""
    return max(numbers(response), key=lambda number: number.start, default=None)


RULES: dict[str, Callable[[str], Number | None]] = {
    "boxed": boxed,
    "first_line": first_line,
    "answer_is": answer_is,
    "last_number": last_number,
}
"""The published rules in their order, by the names that are recorded."""


def extract(response: str) -> Extracted:
    """The answer of a response, by the first rule that finds one. No response makes this raise."""
    if not response.strip():
        return Extracted(BLANK, None, "")
    for name, rule in RULES.items():
        if found := rule(response):
            return Extracted(name if found.value is not None else REVIEW, found.value, found.text)
    return Extracted(REVIEW, None, "")


def reference(answer: str) -> Fraction:
    """The number after the last ``####`` of a worked answer, as in GSM8K.

    Raises:
        UserError: there is no ``####``, or not exactly one number after it.
    """
    _, mark, end = answer.rpartition("####")
    found = list(numbers(end))
    if not mark or len(found) != 1 or found[0].value is None:
        raise UserError(
            f"an answer must end in '#### N', and this one ends in {answer[-40:]!r}; correct it or remove it"
        )
    return found[0].value


def verdict(extracted: Extracted, truth: Fraction) -> AnswerVerdict:
    """The verdict on an extracted answer, by the reference."""
    if extracted.rule == REVIEW:
        return "needs review"
    if extracted.value is None:
        return "no answer"
    return "correct" if extracted.value == truth else "wrong"


def _boxes(response: str) -> Iterator[str]:
    """The content of each closed box; braces inside are matched."""
    for box in BOX.finditer(response):
        depth = 1
        for brace in re.finditer(r"\\.|[{}]", response[box.end() :], re.DOTALL):
            depth += {"{": 1, "}": -1}.get(brace[0], 0)
            if not depth:
                yield response[box.end() : box.end() + brace.start()]
                break
