"""What `answers` may say: nothing in it makes models differ."""

import pytest
from pydantic import Field, ValidationError

from potstill.recipe.answers import Answers
from potstill.recipe.error_messages import complaint
from potstill.recipe.section import Section


class Whole(Section):
    answers: Answers = Field()
    """As a recipe has it."""


def test_all_models_are_asked_the_plain_question_unless_told():
    assert Answers().prompt == "base"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"max_new_tokens": 0}, "`answers.max_new_tokens`: must be greater than 0, not 0"),
        ({"batch_size": 0}, "`answers.batch_size`: must be greater than 0, not 0"),
        (
            {"temperature": 0.7},
            "`answers.temperature`: unknown key; the keys here are prompt, teachers, max_new_tokens, batch_size",
        ),
    ],
)
def test_what_is_wrong_is_refused_by_its_key(fields, sentence):
    raw = {"answers": fields}
    with pytest.raises(ValidationError) as told:
        Whole.model_validate(raw)
    assert complaint(told.value, raw) == sentence
