from dataclasses import replace
from xml.etree import ElementTree

import pytest

from potstill.metrics.results import Result
from potstill.metrics.speed import RatioToTeacher
from potstill.report import charts as looks
from potstill.report.cost_and_gain import GainPoint, charts, main_metric, points, shares_of_the_way, table
from potstill.report.data import ANSWER_METRICS, HELD_OUT_METRICS
from potstill.report.page import render

LOSS, ACCURACY = HELD_OUT_METRICS[0], ANSWER_METRICS[0]
SVG = "{http://www.w3.org/2000/svg}"


def rows(metric=LOSS, **values):
    return [
        Result(model.replace("_", " "), metric.name, value, value - 0.1, value + 0.1, 100)
        for model, value in values.items()
    ]


def told(svg):
    return [label for node in ElementTree.fromstring(svg).iter() if (label := node.get("aria-label"))]


def texts(svg):
    return [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_the_start_is_nothing_and_the_teacher_is_everything():
    shares = shares_of_the_way(rows(teacher=3.0, start=5.0, student=3.5, control=5.5), LOSS)
    assert {model: share[0] for model, share in shares.items()} == {
        "teacher": 1.0,
        "start": 0.0,
        "student": 0.75,
        "control": -0.25,
    }
    assert shares["student"] == pytest.approx((0.75, 0.7, 0.8))


def test_more_is_better_in_accuracy():
    shares = shares_of_the_way(rows(ACCURACY, teacher=0.8, start=0.2, student=0.5), ACCURACY)
    assert shares["student"] == pytest.approx((0.5, 1 / 3, 2 / 3))


def test_the_best_of_several_teachers_is_the_end_of_the_way():
    shares = shares_of_the_way(rows(teacher_a=4.0, teacher_b=3.0, start=5.0, student=3.5), LOSS)
    assert (shares["teacher a"][0], shares["teacher b"][0], shares["student"][0]) == (0.5, 1.0, 0.75)


@pytest.mark.parametrize(
    "values",
    [
        {"teacher": 5.0, "start": 5.0},
        {"teacher": 6.0, "start": 5.0},
        {"teacher": 5.0},
        {"start": 5.0},
        {"teacher": float("nan"), "start": 5.0},
        {"teacher": 5.0, "start": float("inf")},
    ],
)
def test_without_a_better_teacher_there_is_no_way(values):
    assert shares_of_the_way(rows(**values, student=4.0), LOSS) == {}


def test_a_model_without_a_finite_loss_is_no_point():
    shares = shares_of_the_way(rows(teacher=3.0, start=5.0, student=4.0, control=float("nan")), LOSS)
    assert shares.keys() == {"teacher", "start", "student"}


def test_points_have_quality_speed_and_size(examples):
    report = examples["one seed"]()
    found = points(report.rows, main_metric(report), report.speed, looks.LOOKS)
    assert [one.name for one in found] == ["Teacher", "Student", "Control"]
    teacher, student, _ = found
    assert (teacher.quality[0], teacher.speed, teacher.size) == (1.0, (1.0, 1.0, 1.0), 1.0)
    assert student.speed.median == pytest.approx(1.9, rel=0.1)
    assert student.size == pytest.approx(0.605, abs=0.001)
    assert student.quality[1] < student.quality[0] < student.quality[2] < 1


def test_both_charts_tell_every_point(examples):
    report = examples["one seed"]()
    speed, size = charts(points(report.rows, LOSS, report.speed, looks.LOOKS), LOSS)
    for chart in (speed, size):
        for name in ("Teacher", "Student", "Control"):
            assert name in texts(chart["svg"])
            assert any(label.startswith(f"{name}: ") and "of the way" in label for label in told(chart["svg"]))
    assert any("teacher’s" in text for text in texts(speed["svg"]))


def _point(name="Student", quality=0.5, speed=2.0):
    return GainPoint(
        name, (quality, quality, quality), RatioToTeacher(speed, speed, speed), 0.5, looks.OTHER, "circle", name
    )


@pytest.mark.parametrize("quality", [-40.0, 7.0, float("inf")])
def test_a_model_far_off_is_drawn_at_the_edge_with_its_value(quality):
    svg = charts([_point("Teacher", 1.0, 1.0), _point(quality=quality)], LOSS)[0]["svg"]
    assert any("Student (" in text for text in texts(svg))
    # The axis still shows the way itself.
    assert {"0%", "100%"} <= set(texts(svg))


def test_many_points_have_no_names_beside_them():
    svg = charts([_point(f"Student {n}", n / 20) for n in range(20)], LOSS)[0]["svg"]
    assert not [text for text in texts(svg) if text.startswith("Student")]
    assert len([label for label in told(svg) if label.startswith("Student")]) == 20


@pytest.mark.parametrize("speeds", [(1.0, 1.0), (1.0, 100.0), (0.01, 1.0)])
def test_equal_and_very_different_speeds_are_drawn(speeds):
    svg = charts([_point("Teacher", 1.0, speeds[0]), _point(speed=speeds[1])], LOSS)[0]["svg"]
    assert {"Teacher", "Student"} <= set(texts(svg))


def test_the_table_has_sizes_and_rates(examples):
    found = table(examples["one seed"]())
    assert [line["model"] for line in found["lines"]] == ["teacher", "student", "control"]
    teacher, student, control = found["lines"]
    assert (student["parameters"], student["bytes"], student["memory"]) == ("81.4M", "325.7 MB", "402.0 MB")
    assert not any(rate["ratio"] for rate in teacher["rates"])
    assert all("×" in rate["ratio"] for rate in student["rates"])
    assert control["rates"] == student["rates"]
    assert found["notes"] == ["Student was measured; control has the same shape and therefore the same speed."]


def test_several_students_of_one_shape_are_told(examples):
    (note,) = table(examples["matrix"]())["notes"]
    assert note.startswith("Student base was measured; student ground-truth, ")
    assert note.endswith("and control have the same shape and therefore the same speed.")


def test_what_was_not_measured_is_not_shown(examples):
    report = examples["one seed"]()
    without = tuple(replace(one, rates=None, memory=None) for one in report.speed.models)
    speed = replace(report.speed, models=without, rounds=0, notes=("Speed was not measured. Too slow.",))
    page = render(replace(report, speed=speed))
    assert "Speed was not measured. Too slow." in page
    assert "Quality against speed" not in page
    assert "81.4M" in page
    assert "What it costs and what it gives" not in render(replace(report, speed=None))


def test_a_teacher_that_is_no_better_is_told(examples):
    report = examples["one seed"]()
    worse = tuple(replace(row, value=99.0) if row.model == "teacher" else row for row in report.rows)
    page = render(replace(report, rows=worse))
    assert "There is no chart: no teacher is better than the start in loss." in page
    assert "Quality against speed" not in page
