"""Beside the verdict stand the quality that was kept, the size and the speed, as far as the run measured them."""

from dataclasses import replace

import pytest

from potstill.report.first_screen import key_figures


def told(report):
    return [f"{figure.text} {figure.about}".replace("\N{NO-BREAK SPACE}", " ") for figure in key_figures(report)]


def test_quality_size_and_speed_are_told(examples):
    quality, size, speed = told(examples["one seed"]())
    assert quality == "85% of the way from start to teacher, in loss [84%, 86%]"
    assert size == "1.7× smaller than the teacher: 81.4M parameters instead of 134.5M"
    assert speed == "1.97× faster than the teacher when it writes [1.83, 2.01], on cpu, 2 threads"


def test_a_share_of_right_answers_is_compared_with_the_teachers_own(examples):
    whole = examples["matrix"]()
    rows = tuple(
        replace(row, model=row.model.replace("student base", "student"))
        for row in whole.rows
        if not row.model.startswith("student ") or row.model == "student base"
    )
    by = {row.model: row for row in rows if row.metric == "accuracy"}
    own, teacher = by["student"], by["teacher"].value
    low, high = own.low / teacher, own.high / teacher
    assert told(replace(whole, rows=rows, models=(), speed=None)) == [
        f"{own.value / teacher:.0%} of the teacher’s accuracy [{low:.0%}, {high:.0%}]"
    ]


def test_of_several_students_only_size_and_speed_are_told(examples):
    size, speed = told(examples["matrix"]())
    assert size.startswith("1× the teacher’s size")
    assert speed.startswith("1.97× faster")


@pytest.mark.parametrize("missing", ["models", "speed", "rates", "teacher's parameters"])
def test_what_was_not_measured_is_left_out(examples, missing):
    whole = examples["one seed"]()
    no_rates = replace(whole.speed, models=tuple(replace(one, rates=None) for one in whole.speed.models))
    report = {
        "models": replace(whole, models=()),
        "speed": replace(whole, speed=None),
        "rates": replace(whole, speed=no_rates),
        "teacher's parameters": replace(whole, models=tuple(replace(one, parameters=None) for one in whole.models)),
    }[missing]
    word = "faster" if missing in ("speed", "rates") else "smaller"
    assert not [said for said in told(report) if word in said]
    assert len(told(report)) == 2


def test_a_student_that_was_not_measured_has_no_figures(examples):
    assert told(replace(examples["one seed"](), rows=())) == []


@pytest.mark.parametrize(
    ("factor", "said"), [(0.25, "2.03× slower than the teacher"), (0.5, "the speed of the teacher")]
)
def test_a_student_that_is_not_faster_is_told_as_it_is(examples, factor, said):
    whole = examples["one seed"]()
    slower = tuple(
        replace(one, rates={rate: tuple(factor * each for each in rates) for rate, rates in one.rates.items()})
        if one.model != "teacher"
        else one
        for one in whole.speed.models
    )
    assert said in told(replace(whole, speed=replace(whole.speed, models=slower)))[-1]


def test_a_loss_of_quality_is_left_to_the_verdict(examples):
    whole = examples["one seed"]()
    worse = tuple(
        replace(row, value=20.0, low=19.0, high=21.0) if row.model == "student" else row for row in whole.rows
    )
    assert not [said for said in told(replace(whole, rows=worse)) if "of the way" in said]
