"""The experiment in a line: teachers, students, and what they learned from."""

import pytest

import minimal
import toy_chat_runs
from potstill.report.data import Model
from potstill.report.story import about_student, story, units_of

TEACHERS = [Model("one", 134_515_008, 30, role="teacher"), Model("two", 1200, 2, role="teacher")]
START = Model("student before", 81_419_904, 15, role="start")


def test_of_a_text_tokens_are_counted(tmp_path):
    recipe = minimal.recipe(tmp_path)
    assert story(recipe, TEACHERS, START, 102_400) == (
        "one (135M, 30 layers) + two (1,200, 2 layers) → a student of 81M parameters in 15 layers, from 102,400 tokens"
    )
    assert units_of(recipe) == "held-out documents"


@pytest.mark.parametrize(
    ("overrides", "learned_from"), [([], "answers by t"), (["generate=null"], "their reference solutions")]
)
def test_of_questions_it_is_said_who_answered_them(tmp_path, overrides, learned_from):
    recipe = minimal.questions(tmp_path, *overrides)
    said = story(recipe, TEACHERS[:1], START, 7473)
    assert f"→ 3 students of 81M parameters in 15 layers, from 7,473 questions and {learned_from}" in said
    assert "(strategies base, confidence)" in said
    assert units_of(recipe) == "held-out questions"


def test_of_conversations_tokens_are_counted(tmp_path):
    recipe = toy_chat_runs.recipe(tmp_path)
    assert story(recipe, TEACHERS[:1], START, 3000).endswith("in 15 layers, from 3,000 tokens of conversations")
    assert units_of(recipe) == "held-out conversations"


def test_students_differ_in_strategy_placebo_and_losses(tmp_path):
    losses = "experiments.confidence.losses=[{kind: forward_kl, weight: 0.5}, {kind: cross_entropy, weight: 0.5}]"
    recipe = minimal.questions(tmp_path, losses)
    assert [about_student(recipe, name) for name in recipe.variants] == [
        "strategy base",
        "strategy confidence; 0.5 forward_kl + 0.5 cross_entropy",
        "strategy base; its teacher spoke about other questions",
    ]


def test_it_is_said_what_the_student_writes_itself(tmp_path):
    recipe = toy_chat_runs.recipe(tmp_path, "distil.on_policy={share: 0.5, from_step: 1}")
    writes = "it writes 50% of its samples itself from step 2 on"
    assert story(recipe, TEACHERS[:1], START, 3000).endswith(f"tokens of conversations; {writes}")
    several = "experiments={one: {}, other: {on_policy: {share: 0}}}"
    recipe = toy_chat_runs.recipe(tmp_path, "distil.on_policy={share: 0.5}", several)
    assert "writes" not in story(recipe, TEACHERS[:1], START, 3000)
    assert about_student(recipe, "one") == "it writes 50% of its samples itself"
    assert about_student(recipe, "other") == ""
