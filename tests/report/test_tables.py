"""Tables hold every figure once, in a layout that depends on the number of students."""

from dataclasses import replace

import pytest

from potstill.report.tables import MOST_COLUMNS, figures, matrix, split_evenly, table


def test_of_one_student_models_are_columns(examples):
    found = table(examples["one seed"]())
    assert found == figures(examples["one seed"]())
    assert found["models"] == ["student", "control", "teacher", "start"]
    assert found["others"] == ["Student − control", "Student − before"]
    assert all(len(line["cells"]) == 4 for line in found["lines"])


def test_of_several_students_models_are_rows(examples):
    report = examples["matrix"]()
    found = table(report)
    (part,) = found["parts"]
    students = [f"student {name}" for name in ("base", "ground-truth", "teacher", "confidence", "another-question")]
    assert [line["model"] for line in part["lines"]] == ["teacher", "start", "control", *students]
    assert all(len(line["cells"]) == 4 for line in part["lines"])
    assert found["n"] == "1,319"


def test_differences_stand_by_what_they_are_from(examples):
    (part,) = matrix(examples["matrix"]())["parts"]
    found = {group["title"]: [line["model"] for line in group["lines"]] for group in part["groups"]}
    assert [len(lines) for lines in found.values()] == [5, 5, 1]
    assert list(found) == [
        "Minus the control",
        "Minus the student before training",
        "Minus student another-question, whose teacher spoke about other questions",
    ]
    first = part["groups"][0]["lines"][1]["cells"][0]
    assert first["judgement"] == "better"
    assert first["mark"] == "✓"
    assert first["p"].startswith("p")


@pytest.mark.parametrize(("baselines", "rows"), [(MOST_COLUMNS - 4, False), (MOST_COLUMNS - 3, True)])
def test_with_too_many_models_for_columns_they_are_rows(examples, baselines, rows):
    whole = examples["one seed"]()
    own = [row for row in whole.rows if row.model == "student"]
    others = [replace(row, model=f"baseline-{n}") for n in range(baselines) for row in own]
    assert ("parts" in table(replace(whole, rows=(*whole.rows, *others)))) == rows


def test_metrics_that_do_not_fit_are_in_a_second_table(examples):
    found = matrix(examples["longest"]())
    names = [[metric.name for metric, _ in part["metrics"]] for part in found["parts"]]
    assert max(map(len, names)) <= 5
    assert len(names) > 1
    assert [name for part in names for name in part] == [metric.name for metric in examples["longest"]().metrics]


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, []), (1, [1]), (5, [5]), (6, [3, 3]), (11, [3, 4, 4]), (12, [4, 4, 4])]
)
def test_parts_are_of_about_one_size(count, sizes):
    parts = split_evenly(range(count), 5)
    assert [len(part) for part in parts] == sizes
    assert [one for part in parts for one in part] == list(range(count))
