"""What a recipe may ask of a teacher that `potstill serve` gives, and what it may not."""

import pytest

import minimal
from potstill.errors import UserError
from potstill.recipe.teachers import PotstillTeacher

SERVED = "teachers.t={server: 'http://host:8000/v1', api: potstill}"
CHECKPOINT = "student={start: checkpoint, model: student}"


@pytest.mark.parametrize(
    "settings",
    [
        ["capture.keep=hidden"],
        ["capture.keep=sample"],
        ["capture=null"],
        ["distil.losses[0].temperature=2"],
        ["teachers.t.key=POTSTILL_KEY", "teachers.t.concurrency=2"],
    ],
)
def test_it_teaches_as_a_teacher_beside_the_student(tmp_path, settings):
    recipe = minimal.recipe(tmp_path, SERVED, CHECKPOINT, *settings)
    assert isinstance(recipe.teachers["t"], PotstillTeacher)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ([SERVED], "`student.from: t` makes the student from the teacher's weights"),
        ([SERVED, CHECKPOINT, "distil.losses=[{kind: hidden_match}]"], "hidden_match needs the teacher's layers"),
        ([SERVED, CHECKPOINT, "teachers.t.model=m"], "`teachers.t.model`: unknown key"),
        ([SERVED, CHECKPOINT, "teachers.t.top_k=8"], "`teachers.t.top_k`: unknown key"),
        ([SERVED, CHECKPOINT, "teachers.t.key=sk-1"], "must be the name of an environment variable"),
        ([SERVED, CHECKPOINT, "teachers.t.server=host"], "is no address of a server"),
        ([SERVED, CHECKPOINT, "teachers.t.api=other"], "`teachers.t.api`"),
        (["teachers.t={server: 'http://host'}", CHECKPOINT], "`teachers.t.api`: is missing"),
        ([SERVED, CHECKPOINT, "distributed.strategy=fsdp2", "capture=null"], "has no weights here"),
    ],
)
def test_what_it_cannot_give_is_refused(tmp_path, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        minimal.recipe(tmp_path, *settings)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ([], "`generate.by: t`: `teachers.t.api: potstill` gives hidden states and writes no text"),
        (["generate=null"], "`answers.teachers` lets teachers answer, and .*writes no text; set it to false"),
    ],
)
def test_it_writes_nothing(tmp_path, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        minimal.questions(tmp_path, SERVED, CHECKPOINT, *settings)
    minimal.questions(tmp_path, SERVED, CHECKPOINT, "generate=null", "answers.teachers=false")
