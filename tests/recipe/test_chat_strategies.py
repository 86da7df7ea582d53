"""Strategies of conversations: what each lets the teachers read, and what is refused by its key."""

import pytest

from potstill.errors import UserError
from potstill.pipeline.graph import all_steps, needed_by
from potstill.recipe import load_recipe
from potstill.recipe.chat_strategies import key_under, reading_under
from potstill.recipe.conversations import TeacherReading
from potstill.recipe.step import Step

RECIPE = """\
about: chats
teachers: {t: {model: somewhere/teacher}}
corpus: {conversations: [{path: chats.jsonl}], sequence_length: 64}
student: {start: prune_layers, from: t, layers: 2}
distil: {losses: [{kind: forward_kl}], training: {max_steps: 2}}
"""
CAREFUL = 'strategies={"careful": {"teacher": {"system": "{{ system }} Think."}}}'
BOTH = (CAREFUL, 'experiments={"plain": {"strategy": "base"}, "careful": {}}')


@pytest.fixture
def load(tmp_path):
    file = tmp_path / "chats.yaml"
    file.write_text(RECIPE)
    return lambda *overrides: load_recipe(str(file), overrides)


def test_each_strategy_has_words_for_the_teachers_and_the_corpus_has_the_rest(load):
    recipe = load(*BOTH, 'corpus.teacher={"template": "qwen", "sequence_length": 96}')
    given = TeacherReading(template="qwen", sequence_length=96)
    assert reading_under(recipe, "base") == given
    assert reading_under(recipe, "careful") == given.model_copy(update={"system": "{{ system }} Think."})
    assert reading_under(recipe, "ground-truth").shows_answers
    assert [key_under(recipe, name) for name in ("base", "careful")] == ["corpus.teacher", "strategies.careful.teacher"]
    assert reading_under(load(*BOTH), "base") is None


def test_students_with_strategies_have_samples_and_captures_of_their_own(load):
    recipe = load(*BOTH, "capture={}", "generate={by: t}")
    names = [(step.stage, step.name) for step in all_steps(recipe) if step.stage in ("strategies", "capture")]
    assert names == [(stage, name) for stage in ("strategies", "capture") for name in ("base/own", "careful/own")]
    needed = {step.name for step in needed_by(recipe, Step("distil", 0, "careful")) if step.name}
    assert needed == {"careful/own"}
    assert Step("generate") in needed_by(recipe, Step("strategies", name="careful/own"))
    assert {step.name for step in needed_by(recipe, Step("control", 0)) if step.name} == {"base/own"}


@pytest.mark.parametrize(
    "given", [(), ('experiments={"a": {}, "b": {"losses": [{"kind": "reverse_kl"}]}}',), ("capture={}",)]
)
def test_students_without_strategies_learn_the_samples_of_the_corpus(load, given):
    recipe = load(*given)
    assert not recipe.uses_strategies
    assert not recipe.sample_sets
    assert "strategies" not in {step.stage for step in all_steps(recipe)}
    assert [step.name for step in all_steps(recipe) if step.stage == "capture"] == [None] * ("capture={}" in given)


def test_a_recipe_may_say_what_base_is(load):
    recipe = load('strategies={"base": {"teacher": {"system": "Think."}}}')
    assert recipe.uses_strategies
    assert reading_under(recipe, "base").system == "Think."


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([CAREFUL], "`strategies.careful` has no effect; name it in `experiments.NAME.strategy`, or remove it"),
        (
            ['strategies={"a": {"teacher": {"system": "A."}, "student": {"system": "B."}}}', "experiments={a: {}}"],
            "`strategies.a.student` needs questions: students read conversations as they are",
        ),
        (
            [
                'strategies={"a": {"teacher": {"system": "A.", "examples": [{"answer": "Yes."}]}}}',
                "experiments={a: {}}",
            ],
            "`strategies.a.teacher.examples` needs questions; write the examples into `teacher.system`",
        ),
        (
            ['strategies={"a": {"teacher": {"system": "{{ question }}"}}}', "experiments={a: {}}"],
            "`strategies.a.teacher.system` uses the field `question`, and the fields of conversations are system",
        ),
        (
            [*BOTH, 'corpus.teacher={"system": "Be brief."}'],
            "`corpus.teacher` and `experiments.careful` (strategy `careful`) both say what the teachers read",
        ),
        (
            [*BOTH, "corpus.layout=packed"],
            "`experiments.careful` (strategy `careful`) needs `corpus.layout: padded`",
        ),
        (
            [*BOTH, "corpus.too_long=split_turns"],
            "`experiments.careful` (strategy `careful`) needs `corpus.too_long: drop` or `cut_right`",
        ),
        (
            ['strategies={"base": {"teacher": {"system": "Think."}}}', "corpus.layout=packed"],
            "`strategies.base` (strategy `base`) needs `corpus.layout: padded`",
        ),
        (
            ["experiments={a: {strategy: ground-truth}}", "generate={by: t}"],
            "`experiments.a`: the strategy `ground-truth` shows the `reference`, but with `generate`",
        ),
        (
            ["generate={by: t, strategy: ground-truth}"],
            "`generate.strategy`: the strategy `ground-truth` shows the `reference`, but with `generate`",
        ),
        (
            ["generate={by: t, strategy: teacher}", 'corpus.teacher={"system": "Be brief."}'],
            "`corpus.teacher` and `generate.strategy` (strategy `teacher`) both say what the teachers read",
        ),
        (
            ["experiments={a: {strategy: base, targets: another_question}}"],
            "`experiments.a.targets` needs questions, and `corpus` has none",
        ),
        (["experiments={a: {strategy: carefull}}", CAREFUL], "did you mean `careful`?"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_its_key(load, overrides, message):
    with pytest.raises(UserError) as raised:
        load(*overrides)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
