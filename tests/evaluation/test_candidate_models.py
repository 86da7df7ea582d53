"""Candidates: which models of a run are measured, and which of them are compared."""

import minimal
from potstill.evaluation.candidate_models import own_models, pairs_to_compare, reading_alike
from potstill.pipeline.run_folder import Run
from potstill.pipeline.work import Work
from potstill.recipe import load_recipe
from potstill.recipe.candidates import Candidate
from potstill.recipe.step import Step


def _work(recipe, folder):
    return Work(recipe, Run(folder / "run"), Step("evaluate"))


def test_each_candidate_has_a_model_for_each_of_its_seeds(tmp_path):
    models = own_models(_work(minimal.recipe(tmp_path, "seeds=[3, 1]"), tmp_path))
    assert [one.label for one in models] == ["teacher", "start", "student", "control"]
    seeds = {one.label: [model.candidate.seed for model in each] for one, each in models.items()}
    assert seeds == {"teacher": [None], "start": [None], "student": [3, 1], "control": [3, 1]}
    own_tokenizer = {one.label: all(model.tokenizer is not None for model in each) for one, each in models.items()}
    assert own_tokenizer == {"teacher": True, "start": False, "student": False, "control": False}


def test_a_student_is_compared_with_its_start_the_control_and_baselines(tmp_path):
    work = _work(minimal.recipe(tmp_path), tmp_path)
    models = [*own_models(work), Candidate("baseline", "gpt2")]
    assert pairs_to_compare(work, models) == [("student", "start"), ("student", "control"), ("student", "gpt2")]
    without = _work(minimal.recipe(tmp_path, "control=null"), tmp_path)
    assert pairs_to_compare(without, own_models(without)) == [("student", "start")]


def test_a_teacher_of_another_tokenizer_does_not_read_the_students_tokens(tmp_path):
    across = [
        "capture=null",
        "tokenizer={vocab_size: 400}",
        "distil.losses=[{kind: alm}]",
        "student={start: checkpoint, model: a}",
    ]
    work = _work(minimal.recipe(tmp_path, *across), tmp_path)
    assert [one.label for one in reading_alike(work, own_models(work))] == ["start", "student", "control"]
    alike = _work(minimal.recipe(tmp_path), tmp_path)
    assert reading_alike(alike, own_models(alike)).keys() == own_models(alike).keys()


def test_a_student_is_compared_with_teachers_that_were_trained_on_its_text(tmp_path):
    work = _work(load_recipe("babyllama"), tmp_path)
    others = [other for student, other in pairs_to_compare(work, own_models(work)) if student == "student"]
    assert others == ["start", "control", "teacher gpt2", "teacher llama"]
