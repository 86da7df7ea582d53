"""Strategies: what a recipe may give, what is refused by its key, and the shipped strategies."""

import pytest
from jinja2.exceptions import SecurityError, UndefinedError
from pydantic import Field, ValidationError

from potstill.limits import LimitError
from potstill.recipe import strategies
from potstill.recipe.error_messages import complaint
from potstill.recipe.section import Name, Section
from potstill.recipe.strategies import QUESTION, SHIPPED, Prompt, Strategy, compiled, fields_of, rendered


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
        rendered("{{ nothing }}", {"question": "q"})
    with pytest.raises(SecurityError):
        rendered("{{ question.__class__.__mro__ }}", {"question": "q"})
    with pytest.raises(SecurityError):
        rendered("{{ rows.append(1) }}", {"rows": []})


DOUBLED = "{% set it = namespace(x=QUANTITY) %}{% for _ in range(99) %}{% set it.x = it.x SIGN it.x %}{% endfor %}"
HUGE = [
    "{{ 'a' * 10**9 }}",
    "{{ question * 10**9 }}",
    "{{ 10**(10**10) }}",
    "{% for i in range(10**5) %}{% for j in range(10**5) %}a{% endfor %}{% endfor %}",
    "{{ range(10**9) | list }}",
    "{{ question | center(10**10) }}",
    "{{ 'a' | indent(10**9) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ question.ljust(10**9) }}",
    "{{ [1] * 10**9 }}",
    "{{ question * 10**7 }}",
    DOUBLED.replace("QUANTITY", "'ab'").replace("SIGN", "~"),
    DOUBLED.replace("QUANTITY", "'ab'").replace("SIGN", "+"),
    DOUBLED.replace("QUANTITY", "3").replace("SIGN", "*"),
]


@pytest.mark.parametrize("template", HUGE)
def test_a_template_that_gives_or_takes_too_much_is_stopped(template):
    compiled.cache_clear()
    with pytest.raises((LimitError, SecurityError, OverflowError)):
        rendered(template, {"question": "why"})


def test_a_template_may_not_compute_for_ever(monkeypatch):
    monkeypatch.setattr(strategies, "MOST_SECONDS", 0.2)
    with pytest.raises(LimitError, match="takes longer"):
        rendered("{% for i in range(10**5) %}{% for j in range(10**5) %}{% endfor %}{% endfor %}", {})


@pytest.mark.parametrize(
    "template",
    ["{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "{% if 1 %}" * 200 + "{% endif %}" * 200, "{{ 'a' * }}"],
    ids=["parentheses", "blocks", "syntax"],
)
def test_a_template_that_cannot_be_compiled_is_a_sentence(template):
    with pytest.raises(ValidationError, match="template") as error:
        Prompt(user=template)
    assert "\n" not in error.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    ("template", "text"),
    [("{{ 6 * 7 }}", "42"), ("{{ 2**10 }}", "1024"), ("{{ '-' * 3 }}", "---"), ("{{ 9**0 }}", "1")],
)
def test_templates_may_compute(template, text):
    assert rendered(template, {}) == text
