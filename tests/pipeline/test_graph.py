"""The table of stages: what a recipe asks for, and that no key of a recipe is without effect."""

import json
from pathlib import Path

import pytest

import minimal
from potstill.errors import UserError
from potstill.pipeline.graph import BY_NAME, STAGES, all_steps, steps_of
from potstill.pipeline.up_to_date import plain_values
from potstill.recipe import load_recipe, shipped_recipes
from potstill.recipe.step import Step

HOW_NOT_WHAT = {"capture.batch_size", "evaluate.batch_size"}
"""Keys that change how fast something is computed, or in how much memory, and not what comes out."""


def leaves(value, name=""):
    """The dotted names of what is given."""
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in leaves(inner, f"{name}.{key}".strip("."))]
    return [] if value is None else [name]


def reads(recipe, step):
    return BY_NAME[step.stage].recipe_inputs(recipe, step)


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_stage_needs_only_stages_before_it(name):
    for index, stage in enumerate(STAGES):
        assert set(stage.needs(load_recipe(name))) <= {earlier.name for earlier in STAGES[:index]}
        assert stage.about.endswith(".")


def unread(recipe):
    read = {leaf for step in all_steps(recipe) for leaf in leaves(plain_values(reads(recipe, step)))}
    read = {"teachers.t.weight" if leaf == "teachers.weight.t" else leaf for leaf in read}
    return set(leaves(recipe.model_dump(mode="json", by_alias=True))) - read


def test_every_key_of_a_recipe_is_read_by_a_stage(tmp_path):
    recipe = minimal.recipe(tmp_path)
    of_questions = {key for key in leaves(recipe.model_dump(mode="json")) if key.startswith("answers.")}
    assert unread(recipe) == HOW_NOT_WHAT | of_questions


def test_every_key_of_a_recipe_with_questions_is_read_by_a_stage(tmp_path):
    # Which experiments there are decides which steps there are, and so does whether teachers answer.
    # A prompt counts by what it says, whatever its name.
    steps = {
        "answers.teachers",
        "answers.strategy",
        *(f"experiments.{name}.targets" for name in ("base", "confidence", "shuffled")),
    }
    found = unread(minimal.questions(tmp_path))
    assert found == HOW_NOT_WHAT | steps | {"experiments.shuffled.strategy", "answers.batch_size"}


HOSTILE = (
    "held-out",
    "held_out",
    "own",
    "another_question",
    "train",
    "seed-0",
    "student",
    "start",
    "base-of-another-question",
)
"""Names of strategies and experiments that are, or were, words of potstill's own in the run folder."""


def test_no_two_steps_share_a_folder_and_none_lies_in_another_whatever_names_a_user_chooses(tmp_path):
    asked = {name: {"teacher": {"user": "{{ question }}"}} for name in HOSTILE}
    experiments = {name: {} for name in HOSTILE}
    experiments |= {f"placebo-{name}": {"strategy": name, "targets": "another_question"} for name in HOSTILE}
    overrides = [f"strategies={json.dumps(asked)}", f"experiments={json.dumps(experiments)}"]
    for by in ("base", *HOSTILE):
        folders = [
            Path(str(step)) for step in all_steps(minimal.questions(tmp_path, *overrides, f"answers.strategy={by}"))
        ]
        assert len(set(folders)) == len(folders)
        assert not [folder for folder in folders if set(folder.parents) & set(folders)]


@pytest.mark.parametrize(
    ("override", "gone"),
    [("capture=null", ["capture"]), ("control=null", ["control/seed-0"]), ("about=x", [])],
)
def test_what_a_recipe_leaves_out_is_no_step(tmp_path, override, gone):
    everything = [str(step) for step in all_steps(minimal.recipe(tmp_path))]
    left = [str(step) for step in all_steps(minimal.recipe(tmp_path, override))]
    assert [name for name in everything if name not in left] == gone


def test_a_capture_is_made_for_a_student_from_elsewhere_or_for_one_of_its_teacher_s_making(tmp_path):
    # The one is compared on the tokens, the other on all that the head has.
    def reads(recipe):
        return BY_NAME["capture"].recipe_inputs(recipe, Step("capture"))

    checkpoints = [f"student={{start: checkpoint, model: {name}}}" for name in "ab"]
    one, other = (reads(minimal.recipe(tmp_path, student)) for student in checkpoints)
    assert one == other, "any other checkpoint can be trained from the same capture"
    assert one != reads(minimal.recipe(tmp_path)) == reads(minimal.recipe(tmp_path, "student.layers=1"))


def test_what_trains_is_a_step_for_each_seed(tmp_path):
    recipe = minimal.recipe(tmp_path, "seeds=[3, 1]")
    for name in ("distil", "control"):
        assert [str(step) for step in steps_of(recipe, BY_NAME[name])] == [f"{name}/seed-3", f"{name}/seed-1"]
    assert [str(step) for step in steps_of(recipe, BY_NAME["student"])] == ["student"]


def test_each_teacher_that_is_trained_is_a_step_that_reads_what_is_said_of_it_alone():
    recipe = load_recipe("babyllama")
    assert [str(step) for step in steps_of(recipe, BY_NAME["pretrain"])] == ["pretrain/gpt2", "pretrain/llama"]
    other = load_recipe("babyllama", ["pretrain.llama.seed=1", "pretrain.gpt2.weight=2"])
    for step, same in zip(steps_of(recipe, BY_NAME["pretrain"]), (True, False), strict=True):
        assert (reads(recipe, step) == reads(other, step)) is same


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


def test_a_key_that_only_matters_while_training_is_read_by_every_training():
    one, other = (load_recipe("babyllama", [f"corpus.random_offset={offset}"]) for offset in ("true", "false"))
    for step in all_steps(one, "control") + all_steps(one, "distil"):
        same = step.stage in ("tokenizer", "student")
        assert (reads(one, step) == reads(other, step)) is same, step


def test_a_start_of_questions_is_looked_at_as_its_first_student_is_asked(tmp_path):
    step = Step("student")
    one = minimal.questions(tmp_path)
    asked = "strategies={other: {teacher: {user: '{{ question }}'}, student: {user: 'Now: {{ question }}'}}}"
    first, second = (
        minimal.questions(tmp_path, asked, f"experiments.{name}.strategy=other") for name in ("base", "confidence")
    )
    assert reads(one, step) != reads(first, step)
    assert reads(one, step) == reads(second, step), "what a later student is asked is nothing to the start"
