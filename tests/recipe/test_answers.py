"""`answers:` — its default and what it refuses. None of its keys makes models differ."""

import re

import pytest
from pydantic import Field, ValidationError

import minimal
from potstill.errors import UserError
from potstill.recipe.answers import Answers
from potstill.recipe.error_messages import complaint
from potstill.recipe.section import Section


class Whole(Section):
    answers: Answers = Field()
    """The section under test."""


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ("answers.sentences=null", "`answers.sentences` has no effect on answers that are judged by a number"),
        ("generate.keep=correct", "`generate.keep: correct` needs references that end in `#### N`"),
    ],
)
def test_what_needs_a_number_or_none_is_refused(tmp_path, settings, sentence):
    number = "answers.number=false" if "generate" in settings else "answers.number=true"
    with pytest.raises(UserError, match=re.escape(sentence)):
        minimal.questions(tmp_path, number, settings)


def test_text_has_no_answers(tmp_path):
    with pytest.raises(UserError, match="`answers` needs questions, and `corpus` has none"):
        minimal.recipe(tmp_path, "answers.max_new_tokens=8")


def test_by_default_all_models_get_the_base_strategy():
    assert Answers().strategy == "base"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"max_new_tokens": 0}, "`answers.max_new_tokens`: must be greater than 0, not 0"),
        ({"batch_size": 0}, "`answers.batch_size`: must be greater than 0, not 0"),
        (
            {"temperature": 0.7},
            "`answers.temperature`: unknown key; the keys here are strategy, number, sentences, teachers, "
            "max_new_tokens, batch_size, engine",
        ),
    ],
)
def test_an_error_names_its_key(fields, sentence):
    raw = {"answers": fields}
    with pytest.raises(ValidationError) as error:
        Whole.model_validate(raw)
    assert complaint(error.value, raw) == sentence
