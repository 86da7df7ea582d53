"""Recipe inputs: every key of a recipe is an input of some step, and only of the steps that depend on it."""

import minimal
from potstill.pipeline.graph import BY_NAME, all_steps, steps_of
from potstill.pipeline.up_to_date import plain_values
from potstill.recipe import load_recipe
from potstill.recipe.step import Step

HOW_NOT_WHAT = {"capture.batch_size", "evaluate.batch_size", "distributed.strategy"}
"""Keys that change how fast something is computed, or in how much memory, and not what comes out."""


def leaves(value, name=""):
    """The dotted names of all values that are not None."""
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in leaves(inner, f"{name}.{key}".strip("."))]
    return [] if value is None else [name]


def reads(recipe, step):
    return BY_NAME[step.stage].recipe_inputs(recipe, step)


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
    judged = {"answers.number", "answers.sentences.package", "answers.sentences.folder"}
    not_what = HOW_NOT_WHAT | steps | {"experiments.shuffled.strategy", "answers.batch_size"}
    assert unread(minimal.questions(tmp_path)) == not_what | judged
    assert unread(minimal.questions(tmp_path, "answers.number=false")) == not_what


def test_a_capture_is_made_for_a_student_from_elsewhere_or_for_one_of_its_teacher_s_making(tmp_path):
    # The one is compared on the tokens, the other on all that the head has.
    def reads(recipe):
        return BY_NAME["capture"].recipe_inputs(recipe, Step("capture"))

    checkpoints = [f"student={{start: checkpoint, model: {name}}}" for name in "ab"]
    one, other = (reads(minimal.recipe(tmp_path, student)) for student in checkpoints)
    assert one == other, "any other checkpoint can be trained from the same capture"
    assert one != reads(minimal.recipe(tmp_path)) == reads(minimal.recipe(tmp_path, "student.layers=1"))


def test_each_teacher_that_is_trained_is_a_step_that_reads_what_is_said_of_it_alone():
    recipe = load_recipe("babyllama")
    assert [str(step) for step in steps_of(recipe, BY_NAME["pretrain"])] == ["pretrain/gpt2", "pretrain/llama"]
    other = load_recipe("babyllama", ["pretrain.llama.seed=1", "pretrain.gpt2.weight=2"])
    for step, same in zip(steps_of(recipe, BY_NAME["pretrain"]), (True, False), strict=True):
        assert (reads(recipe, step) == reads(other, step)) is same


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


def test_to_capture_spans_changes_the_corpus_and_no_step_before_it(tmp_path):
    minimal.inputs(tmp_path)
    across = (
        "tokenizer={vocab_size: 400}",
        "student={start: scratch, config: {model_type: llama, num_hidden_layers: 2, hidden_size: 32}}",
        "distil.losses=[{kind: alm}]",
    )
    live, captured = (minimal.recipe(tmp_path, *across, f"capture={given}") for given in ("null", "{keep: spans}"))
    changed = [step.stage for step in all_steps(live) if reads(live, step) != reads(captured, step)]
    assert changed[0] == "corpus"
