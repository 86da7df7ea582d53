"""Tables hold every figure once, in a layout that depends on the number of students."""

from potstill.report.tables import figures, matrix


def test_of_one_student_models_are_columns(examples):
    table = figures(examples["one seed"]())
    assert table["models"] == ["teacher", "start", "student", "control"]
    assert table["others"] == ["Student − control", "Student − before"]
    assert all(len(line["cells"]) == 4 for line in table["lines"])


def test_of_several_students_models_are_rows(examples):
    report = examples["matrix"]()
    table = matrix(report)
    students = [f"student {name}" for name in ("base", "ground-truth", "teacher", "confidence", "another-question")]
    assert [line["model"] for line in table["lines"]] == ["teacher", "start", "control", *students]
    assert all(len(line["cells"]) == 4 for line in table["lines"])
    assert table["n"] == "1,319"


def test_differences_stand_by_what_they_are_from(examples):
    table = matrix(examples["matrix"]())
    found = {group["title"]: [line["model"] for line in group["lines"]] for group in table["groups"]}
    assert [len(lines) for lines in found.values()] == [5, 5, 1]
    assert list(found) == [
        "Minus the control",
        "Minus the student before training",
        "Minus student another-question, whose teacher spoke about other questions",
    ]
    first = table["groups"][0]["lines"][1]["cells"][0]
    assert first["judgement"] == "better"
    assert first["mark"] == "✓"
    assert first["p"].startswith("p")
