"""The table of stages: the steps that a recipe asks for, and the stages that each needs."""

import pytest

import minimal
from potstill.errors import UserError
from potstill.pipeline.graph import BY_NAME, STAGES, all_steps
from potstill.recipe import load_recipe, shipped_recipes


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_stage_needs_only_stages_before_it(name):
    for index, stage in enumerate(STAGES):
        assert set(stage.needs(load_recipe(name))) <= {earlier.name for earlier in STAGES[:index]}
        assert stage.about.endswith(".")


@pytest.mark.parametrize(
    ("override", "gone"),
    [("capture=null", ["capture"]), ("control=null", ["control/seed-0"]), ("about=x", [])],
)
def test_what_a_recipe_leaves_out_is_no_step(tmp_path, override, gone):
    everything = [str(step) for step in all_steps(minimal.recipe(tmp_path))]
    left = [str(step) for step in all_steps(minimal.recipe(tmp_path, override))]
    assert [name for name in everything if name not in left] == gone


@pytest.mark.parametrize(("student", "waits"), [("{start: prune_layers, from: gpt2, layers: 2}", True), (None, False)])
def test_a_student_from_nothing_does_not_wait_for_its_teachers(student, waits):
    recipe = load_recipe("babyllama", [f"student={student}"] if student else [])
    assert ("pretrain/gpt2" in [str(step) for step in all_steps(recipe, "student")]) is waits


@pytest.mark.parametrize(
    ("until", "steps"),
    [
        ("teachers", ["teachers"]),
        ("corpus", ["teachers", "corpus"]),
        ("student", ["teachers", "corpus", "student"]),
        ("control", ["teachers", "corpus", "student", "control/seed-0"]),
        ("distil", ["teachers", "corpus", "student", "capture", "distil/seed-0"]),
    ],
)
def test_a_verb_asks_for_its_stage_and_what_that_needs(tmp_path, until, steps):
    assert [str(step) for step in all_steps(minimal.recipe(tmp_path), until)] == steps


def test_the_report_needs_everything(tmp_path):
    recipe = minimal.recipe(tmp_path)
    assert all_steps(recipe, "report") == all_steps(recipe)


def test_what_is_not_there_cannot_be_asked_for(tmp_path):
    with pytest.raises(UserError, match=f"no stage 'destil'; the stages are {', '.join(BY_NAME)}"):
        all_steps(minimal.recipe(tmp_path), "destil")
    with pytest.raises(
        UserError, match=r"leaves `control` out, so there is nothing to do; add a section `control: \{\}`"
    ):
        all_steps(minimal.recipe(tmp_path, "control=null"), "control")
