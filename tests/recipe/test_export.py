import pytest

import minimal
from potstill.errors import UserError
from potstill.pipeline.graph import BY_NAME, needed_by, steps_of
from potstill.pipeline.steps import exported_by
from potstill.recipe.candidates import Candidate
from potstill.recipe.export_formats import FORMATS, file_type_of, folder_of, format_of


def exports(recipe):
    return [str(step) for step in steps_of(recipe, BY_NAME["export"])]


def test_without_the_section_nothing_is_exported(tmp_path):
    assert exports(minimal.recipe(tmp_path)) == []


def test_each_format_of_each_student_is_a_step_of_its_own(tmp_path):
    recipe = minimal.recipe(tmp_path, 'export.to=["gguf:Q8_0", "merged"]', "seeds=[3, 1]")
    assert exports(recipe) == ["export/student/gguf-Q8_0", "export/student/merged"]
    step = steps_of(recipe, BY_NAME["export"])[0]
    assert exported_by(recipe, step) == Candidate("student", None, 3)
    needed = [str(one) for one in needed_by(recipe, step)]
    assert "distil/seed-3" in needed
    assert not {"distil/seed-1", "control/seed-3", "evaluate"} & {*needed}


def test_students_are_named(tmp_path):
    students = "experiments={one: {}, two: {}}"
    recipe = minimal.recipe(tmp_path, students, "export.to=[merged]")
    assert exports(recipe) == ["export/one/merged", "export/two/merged"]
    assert exports(minimal.recipe(tmp_path, students, "export={to: [merged], experiments: [two]}")) == [
        "export/two/merged"
    ]


def test_a_format_and_its_folder_name_each_other():
    assert [format_of(folder_of(each)) for each in FORMATS] == [*FORMATS]
    assert [file_type_of(each) for each in FORMATS[-3:]] == ["Q4_K_M", None, None]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("export.to=[gguf:Q9]", "export.to.*gguf:Q8_0"),
        ("export.to=[]", "export.to"),
        ("export.to=[merged, merged]", "'merged' is listed twice; remove one of them"),
        ("export.experiments=[other]", "`export.experiments`: 'other' is not one of `experiments`: there are none"),
        ("export.format=merged", "export.format.*the keys here are to, experiments"),
    ],
)
def test_what_cannot_be_asked_for_is_one_sentence(tmp_path, given, message):
    with pytest.raises(UserError, match=message):
        minimal.recipe(tmp_path, given)
