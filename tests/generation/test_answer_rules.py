"""The rules of `generate` that hold whatever is answered, and the nearest of several answers."""

import pytest

from potstill.errors import UserError
from potstill.generation.answer_rules import fault, nearest
from potstill.generation.generate import Response
from potstill.recipe.generate import Generate


def said(text="It rains.", tokens=5, hit_limit=False, sample=0):
    return Response("q", sample, text, tokens, hit_limit)


@pytest.mark.parametrize(
    ("response", "rules", "expected"),
    [
        (said(), {}, None),
        (said(hit_limit=True), {}, "did not end within `max_new_tokens`"),
        (said(" \n"), {}, "is blank"),
        (said(tokens=5), {"shortest": 5, "longest": 5}, None),
        (said(tokens=4), {"shortest": 5}, "is shorter than `shortest`"),
        (said(tokens=6), {"longest": 5}, "is longer than `longest`"),
        (said("So.\nIt rains."), {"matching": r"^It \w+\.$"}, "does not match `matching`"),
        (said("So.\nIt rains."), {"matching": r"(?m)^It \w+\.$"}, None),
    ],
)
def test_a_response_is_refused_for_its_first_fault(response, rules, expected):
    assert fault(response, Generate(by="t", **rules)) == expected


def test_an_expression_that_never_ends_is_stopped(monkeypatch):
    monkeypatch.setattr("potstill.generation.answer_rules.MOST_SECONDS", 0.2)
    with pytest.raises(UserError, match=r"`generate.matching`: .* takes longer than 0.2 seconds on an answer"):
        fault(said("a" * 40), Generate(by="t", matching=r"(a+)+$b"))


def test_the_nearest_has_the_longest_common_subsequence_and_of_equals_the_first_is_taken():
    answers = [said("It snows.", sample=0), said("in the hills it rains", sample=1), said("It rains!", sample=2)]
    assert nearest(answers, "It rains.").sample == 2
    assert nearest([*answers, said("it rains", sample=3)], "It rains.").sample == 2
    assert nearest(answers[:1], "nothing alike").sample == 0
