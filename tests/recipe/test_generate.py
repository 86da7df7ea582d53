"""`generate:` — its defaults, what it refuses, and keys without effect."""

import pytest
from pydantic import Field, ValidationError

from potstill.recipe.error_messages import complaint
from potstill.recipe.generate import Generate
from potstill.recipe.section import Section


class Whole(Section):
    generate: Generate = Field()
    """The section under test."""


def refusal(section):
    raw = {"generate": section}
    with pytest.raises(ValidationError) as error:
        Whole.model_validate(raw)
    return complaint(error.value, raw)


def test_by_default_it_answers_once_and_greedily():
    section = Generate(by="teacher")
    assert (section.strategy, section.samples, section.temperature, section.keep) == ("base", 1, 0, "all")


def test_drawn_answers_may_be_several():
    section = Generate(by="t", samples=4, temperature=0.7, top_p=0.9, top_k=20, seed=3, keep="correct")
    assert (section.samples, section.top_p, section.top_k, section.seed) == (4, 0.9, 20, 3)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"by": None}, "`generate.by`: must be text, not nothing"),
        (
            {"samples": 4},
            "`generate.samples`: is 4, but with `temperature: 0` all answers to a question are the same; raise "
            "`temperature`, or remove `samples`",
        ),
        (
            {"top_p": 0.9},
            "`generate.top_p`: has no effect with `temperature: 0`, because nothing is drawn; remove it",
        ),
        ({"top_k": 5}, "`generate.top_k`: has no effect with `temperature: 0`, because nothing is drawn; remove it"),
        ({"seed": 5}, "`generate.seed`: has no effect with `temperature: 0`, because nothing is drawn; remove it"),
        ({"temperature": -1}, "`generate.temperature`: must be at least 0, not -1"),
        ({"top_p": 0, "temperature": 1}, "`generate.top_p`: must be greater than 0, not 0"),
        ({"max_new_tokens": 0}, "`generate.max_new_tokens`: must be greater than 0, not 0"),
        ({"keep": "best"}, "`generate.keep`: must be 'all', 'correct' or 'nearest', not 'best'"),
        ({"keep": "nearest"}, "`generate.keep`: is `nearest`, but there is one answer to choose from; raise `samples`"),
        (
            {"matching": "(a"},
            "`generate.matching`: '(a' is no regular expression (missing ), unterminated subpattern at position 0); "
            "correct it",
        ),
        ({"longest": 256}, "`generate.longest`: has no effect, because `max_new_tokens` is 256; remove it"),
        ({"shortest": 256}, "`generate.shortest`: is 256, but no answer has more than 255 tokens; lower it"),
        (
            {"shortest": 9, "longest": 8},
            "`generate.shortest`: is 9, but no answer has more than 8 tokens; lower it",
        ),
        ({"turns": "first"}, "`generate.turns`: must be 'last' or 'each', not 'first'"),
    ],
)
def test_an_error_names_its_key(fields, sentence):
    assert refusal({"by": "teacher", **fields}) == sentence


def test_a_teacher_must_be_named():
    assert refusal({}) == "`generate.by`: is missing; `potstill schema` shows its values"
