"""Candidates: label, folder and step of every model under comparison."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimal
from potstill.recipe.candidates import Candidate, own_candidates, teacher_candidates, trained_candidates
from potstill.recipe.step import Step

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]*", fullmatch=True)
OWN = st.builds(Candidate, st.sampled_from(["teacher", "start", "student", "control"]), st.none() | NAMES)
BASELINES = NAMES.filter(lambda name: name not in ("teacher", "start", "student", "control"))


@given(OWN | st.builds(Candidate, st.just("baseline"), BASELINES))
def test_a_candidate_is_read_back_from_its_label(candidate):
    assert Candidate.from_label(candidate.label) == candidate


@pytest.mark.parametrize(
    ("candidate", "label", "folder"),
    [
        (Candidate("start"), "start", "start"),
        (Candidate("teacher", "gpt2"), "teacher gpt2", "teacher/gpt2"),
        (Candidate("student", None, 0), "student", "student/seed-0"),
        (Candidate("student", "base", 3), "student base", "student/base/seed-3"),
        (Candidate("control", None, 1), "control", "control/seed-1"),
        (Candidate("baseline", "pythia"), "pythia", "baseline/pythia"),
    ],
)
def test_a_candidate_has_one_label_and_one_folder(candidate, label, folder):
    assert (candidate.label, candidate.folder) == (label, folder)


def test_the_step_of_a_candidate_is_its_training():
    assert Candidate("student", "base", 3).step == Step("distil", 3, "base")
    assert Candidate("control", None, 1).step == Step("control", 1)


def test_a_recipe_has_its_candidates_in_one_order(tmp_path):
    recipe = minimal.questions(tmp_path, "seeds=[0, 1]")
    names = ("base", "confidence", "shuffled")
    students = [Candidate("student", name, seed) for name in names for seed in (0, 1)]
    controls = [Candidate("control", None, seed) for seed in (0, 1)]
    assert trained_candidates(recipe) == [*students, *controls]
    assert own_candidates(recipe) == [Candidate("teacher"), Candidate("start"), *students, *controls]
    assert trained_candidates(minimal.questions(tmp_path, "control=null")) == [
        Candidate("student", name, 0) for name in names
    ]


def test_only_one_of_several_teachers_needs_its_name(tmp_path):
    two = minimal.recipe(tmp_path, "teachers.other={model: other}", "distil.mix=probabilities")
    assert teacher_candidates(two) == [Candidate("teacher", "t"), Candidate("teacher", "other")]


def test_no_two_candidates_share_a_folder_with_any_names(tmp_path):
    experiments = "{seed-0: {}, student: {}, control: {}, teacher: {}, start: {}, seed-0-seed-0: {}}"
    for more in (["seeds=[0, 1]"], ["seeds=[0]"]):
        found = own_candidates(minimal.questions(tmp_path, f"experiments={experiments}", *more))
        folders = [candidate.folder for candidate in found]
        assert len(set(folders)) == len(folders)
        assert len({candidate.label for candidate in found}) == len({one.of_all_seeds for one in found})
