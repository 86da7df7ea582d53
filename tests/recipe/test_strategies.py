"""Strategies: what a recipe may give, what is refused by its key, and the shipped strategies."""

import pytest
from jinja2.exceptions import SecurityError, UndefinedError
from pydantic import Field, ValidationError

from potstill.recipe.error_messages import complaint
from potstill.recipe.section import Name, Section
from potstill.recipe.strategies import QUESTION, SHIPPED, Prompt, Strategy, compiled, fields_of


class Whole(Section):
    """A recipe with nothing but strategies."""

    strategies: dict[Name, Strategy] = Field(default_factory=dict)
    """By name."""


def refusal(strategy) -> str:
    raw = {"strategies": {"x": strategy}}
    with pytest.raises(ValidationError) as error:
        Whole.model_validate(raw)
    return complaint(error.value, raw)


@pytest.mark.parametrize(
    ("strategy", "sentence"),
    [
        ({}, "`strategies.x.teacher`: is missing; `potstill schema` shows its values"),
        (
            {"teacher": {}},
            '`strategies.x.teacher`: has no template; give `system`, `user` or both, such as `user: "{{ question }}"`',
        ),
        (
            {"teacher": {"user": "q"}, "student": {"examples": []}},
            '`strategies.x.student`: has no template; give `system`, `user` or both, such as `user: "{{ question }}"`',
        ),
        ({"teacher": {"user": " \n"}}, "`strategies.x.teacher.user`: is blank; write a template, or remove it"),
        (
            {"teacher": {"system": "a\n{{ question"}},
            "`strategies.x.teacher.system`: is not a valid Jinja template (line 2: unexpected end of template, "
            "expected 'end of print statement'.); correct it",
        ),
        ({"teacher": {"usr": "q"}}, "`strategies.x.teacher.usr`: unknown key; did you mean `user`?"),
        (
            {"teacher": {"user": "q", "examples": [{"question": "a", "answer": "b"}, {"question": "a"}]}},
            "`strategies.x.teacher.examples.1.answer`: is missing; give the answer of the example",
        ),
        (
            {"teacher": {"user": "q"}, "student": {"user": "{{ question }} {{ reference }}"}},
            "`strategies.x.student.user`: uses `reference`, which the student must learn to write; use other fields",
        ),
        (
            {"teacher": {"user": "q"}, "student": {"system": "{% if answer %}Hm.{% endif %}"}},
            "`strategies.x.student.system`: uses `answer`, which the student must learn to write; use other fields",
        ),
    ],
)
def test_an_error_names_its_key(strategy, sentence):
    assert refusal(strategy) == sentence


def test_a_system_message_alone_leaves_the_question_unchanged():
    strategy = Strategy(teacher=Prompt(system="Be brief."))
    assert strategy.teacher.question == QUESTION
    assert strategy.student == Prompt(user=QUESTION)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_recipe_could_give_every_shipped_strategy(name):
    strategy = SHIPPED[name]
    raw = {"strategies": {name: strategy.model_dump(mode="json")}}
    assert Whole.model_validate(raw).strategies == {name: strategy}
    assert "question" in fields_of(strategy.teacher.question)
    assert strategy.student == SHIPPED["base"].student, "experiments are compared under one prompt"


def test_the_published_strategies_ship_and_only_ground_truth_shows_the_solution():
    assert list(SHIPPED) == ["base", "teacher", "ground-truth", "confidence"]
    showing = [name for name, one in SHIPPED.items() if "reference" in fields_of(one.teacher.question)]
    assert showing == ["ground-truth"]
    assert len({one.teacher.model_dump_json() for one in SHIPPED.values()}) == 4


def test_the_fields_of_a_template_are_the_fields_that_a_row_must_have():
    template = "{% for step in steps %}{{ loop.index }} {{ step }}{% endfor %}{{ question | upper }} {{ range(2) }}"
    assert fields_of(template) == {"steps", "question"}


def test_templates_need_every_field_and_cannot_use_python():
    with pytest.raises(UndefinedError):
        compiled("{{ nothing }}").render(question="q")
    with pytest.raises(SecurityError):
        compiled("{{ question.__class__.__mro__ }}").render(question="q")
    with pytest.raises(SecurityError):
        compiled("{{ rows.append(1) }}").render(rows=[])
