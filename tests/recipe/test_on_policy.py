"""Settings of written samples that cannot work or have no effect are refused when the recipe is read."""

import pytest

import toy_questions
from potstill.errors import UserError
from potstill.pipeline.recipe_inputs import control_training, search_trials, student_training
from tiny import toy_recipe

BASE = "experiments={base: {}}"


@pytest.mark.parametrize(
    ("on_policy", "others", "message"),
    [
        ("{share: 1}", ["capture={}"], "`capture` has no effect beside `distil.on_policy.share: 1`"),
        ("{from_step: 4}", [], "`distil.on_policy.from_step` is 4, and `distil.training.max_steps` is 4"),
        ("{}", ["distributed.strategy=fsdp2"], "`distil.on_policy` lets the student write.*use `ddp`"),
        ("{}", ["distil.losses=[{kind: policy_gradient}]"], "policy_gradient"),
        ("{losses: [{kind: cross_entropy}]}", [], "losses"),
        ("{losses: [{kind: policy_gradient, clip: 0.1}]}", [], "`clip` has no effect without `refresh_every`"),
        ("{share: 1.5}", [], "share"),
        ("{refresh_every: 0}", [], "refresh_every"),
        ("{sampling: {temperature: 0}}", [], "temperature"),
        ("{lmbda: 0.5}", [], "lmbda"),
    ],
)
def test_what_cannot_be_is_refused_with_its_key(tmp_path, on_policy, others, message):
    with pytest.raises(UserError, match=message):
        toy_questions.recipe(tmp_path, BASE, f"distil.on_policy={on_policy}", *others)


def test_a_text_must_leave_something_to_continue(tmp_path):
    with pytest.raises(UserError, match=r"`distil.on_policy.beginning` is 32, and `corpus.sequence_length` is 32"):
        toy_recipe(tmp_path, "distil.on_policy={}")
    toy_recipe(tmp_path, "distil.on_policy={beginning: 31}")


def test_an_experiment_may_write_otherwise_or_not_at_all(tmp_path):
    given = "experiments={base: {}, all: {on_policy: {share: 1}}, none: {on_policy: {share: 0}}}"
    recipe = toy_questions.recipe(tmp_path, "distil.on_policy={share: 0.5}", given)
    shares = {name: getattr(recipe.on_policy_of(name), "share", None) for name in recipe.variants}
    assert shares == {"base": 0.5, "all": 1, "none": None}


def test_only_what_changes_the_student_makes_its_training_run_again(tmp_path):
    without = toy_questions.recipe(tmp_path, BASE)
    first, warned, other = (
        toy_questions.recipe(tmp_path, BASE, f"distil.on_policy={{share: {share}, preflight: {preflight}}}")
        for share, preflight in ((0.5, "refuse"), (0.5, "warn"), (0.25, "refuse"))
    )
    assert student_training(first, "base") == student_training(warned, "base") != student_training(other, "base")
    assert "on_policy" not in str(student_training(without, "base"))
    assert control_training(first) == control_training(without)


def test_a_search_does_not_depend_on_written_samples(tmp_path):
    searched = "search={share: [0.2, 0.8], trials: 2}"
    both = [toy_questions.recipe(tmp_path, BASE, searched, *more) for more in ([], ["distil.on_policy={}"])]
    assert search_trials(both[0]) == search_trials(both[1])
