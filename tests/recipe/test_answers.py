"""`answers:` — its default and what it refuses. None of its keys makes models differ."""

import pytest
from pydantic import Field, ValidationError

from potstill.recipe.answers import Answers
from potstill.recipe.error_messages import complaint
from potstill.recipe.section import Section


class Whole(Section):
    answers: Answers = Field()
    """The section under test."""


def test_by_default_all_models_get_the_base_strategy():
    assert Answers().strategy == "base"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"max_new_tokens": 0}, "`answers.max_new_tokens`: must be greater than 0, not 0"),
        ({"batch_size": 0}, "`answers.batch_size`: must be greater than 0, not 0"),
        (
            {"temperature": 0.7},
            "`answers.temperature`: unknown key; the keys here are strategy, teachers, max_new_tokens, batch_size",
        ),
    ],
)
def test_an_error_names_its_key(fields, sentence):
    raw = {"answers": fields}
    with pytest.raises(ValidationError) as error:
        Whole.model_validate(raw)
    assert complaint(error.value, raw) == sentence
