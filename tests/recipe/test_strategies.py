"""Strategies as data: what may be written, what is refused by name, and what ships."""

import pytest
from jinja2.exceptions import SecurityError, UndefinedError
from pydantic import Field, ValidationError

from potstill.recipe.error_messages import complaint
from potstill.recipe.section import Name, Section
from potstill.recipe.strategies import QUESTION, SHIPPED, Prompt, Strategy, compiled, fields_of


class Prompts(Section):
    """As a recipe will have them."""

    prompts: dict[Name, Strategy] = Field(default_factory=dict)
    """By name."""


def refusal(strategy) -> str:
    raw = {"strategies": {"x": strategy}}
    with pytest.raises(ValidationError) as told:
        Prompts.model_validate(raw)
    return complaint(told.value, raw)


@pytest.mark.parametrize(
    ("strategy", "sentence"),
    [
        ({}, "`strategies.x.teacher`: is missing; `potstill schema` says what it takes"),
        (
            {"teacher": {}},
            '`strategies.x.teacher`: has no template; give `system`, `user` or both, such as `user: "{{ question }}"`',
        ),
        (
            {"teacher": {"user": "q"}, "student": {"examples": []}},
            '`strategies.x.student`: has no template; give `system`, `user` or both, such as `user: "{{ question }}"`',
        ),
        ({"teacher": {"user": " \n"}}, "`strategies.x.teacher.user`: is blank; write a template, or leave it out"),
        (
            {"teacher": {"system": "a\n{{ question"}},
            "`strategies.x.teacher.system`: is no Jinja template (line 2: unexpected end of template, expected 'end of "
            "print statement'.)",
        ),
        ({"teacher": {"usr": "q"}}, "`strategies.x.teacher.usr`: unknown key; did you mean `user`?"),
        (
            {"teacher": {"user": "q", "examples": [{"question": "a", "answer": "b"}, {"question": "a"}]}},
            "`strategies.x.teacher.examples.1.answer`: is missing; say how the example is answered",
        ),
        (
            {"teacher": {"user": "q"}, "student": {"user": "{{ question }} {{ reference }}"}},
            "`strategies.x.student.user`: shows the student the `reference` that it is to learn; use other fields",
        ),
        (
            {"teacher": {"user": "q"}, "student": {"system": "{% if answer %}Hm.{% endif %}"}},
            "`strategies.x.student.system`: shows the student the `answer` that it is to learn; use other fields",
        ),
    ],
)
def test_what_is_wrong_is_refused_by_its_key(strategy, sentence):
    assert refusal(strategy) == sentence


def test_a_system_message_alone_asks_the_question_as_it_is():
    strategy = Strategy(teacher=Prompt(system="Be brief."))
    assert strategy.teacher.question == QUESTION
    assert strategy.student == Prompt(user=QUESTION)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_strategy_is_what_a_recipe_could_say(name):
    strategy = SHIPPED[name]
    raw = {"strategies": {name: strategy.model_dump(mode="json")}}
    assert Prompts.model_validate(raw).prompts == {name: strategy}
    assert "question" in fields_of(strategy.teacher.question)
    assert strategy.student == SHIPPED["base"].student, "experiments are compared under one prompt"


def test_the_published_strategies_ship_and_only_one_shows_the_solution():
    assert list(SHIPPED) == ["base", "teacher", "ground-truth", "confidence"]
    showing = [name for name, one in SHIPPED.items() if "reference" in fields_of(one.teacher.question)]
    assert showing == ["ground-truth"]
    assert len({one.teacher.model_dump_json() for one in SHIPPED.values()}) == 4


def test_fields_are_what_a_row_must_have():
    template = "{% for step in steps %}{{ loop.index }} {{ step }}{% endfor %}{{ question | upper }} {{ range(2) }}"
    assert fields_of(template) == {"steps", "question"}


def test_templates_are_strict_and_reach_nothing_of_python():
    with pytest.raises(UndefinedError):
        compiled("{{ nothing }}").render(question="q")
    with pytest.raises(SecurityError):
        compiled("{{ question.__class__.__mro__ }}").render(question="q")
    with pytest.raises(SecurityError):
        compiled("{{ rows.append(1) }}").render(rows=[])
