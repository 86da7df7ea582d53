"""The verdict follows the intervals; gain, loss and no effect are told equally plainly."""

from dataclasses import replace

import pytest

from potstill.metrics.results import Paired
from potstill.report.verdict import verdict


def pair(other: str, difference: float, half: float = 0.02, **more) -> Paired:
    return Paired("student", other, "loss", difference, difference - half, difference + half, 304, 0.01, **more)


@pytest.mark.parametrize(
    ("control", "start", "tone", "words"),
    [
        (-0.1, -6.8, "good", "Distillation helped"),
        (0.1, -6.8, "bad", "without the teacher does better"),
        (0.0, -6.8, "open", "Training helped; the teacher made no difference beyond chance"),
        (0.0, 0.0, "open", "No gain"),
        (-0.1, 0.5, "bad", "worse than before training"),
        (0.1, 0.5, "bad", "worse than before training"),
        (-0.1, 0.0, "open", "no better than before training"),
        (0.0, None, "open", "The teacher made no difference"),
        (None, -6.8, "open", "whether the teacher helped is unknown"),
        (None, 0.5, "bad", "worse than before training"),
        (None, 0.0, "open", "No gain beyond chance"),
        (None, None, "open", "No verdict"),
    ],
)
def test_every_outcome_has_its_headline(examples, control, start, tone, words):
    pairs = [pair(name, value) for name, value in (("control", control), ("start", start)) if value is not None]
    found = verdict(replace(examples["one seed"](), paired=tuple(pairs)))
    assert words in found.headline
    assert found.tone == tone


def test_a_gain_is_told_with_all_its_figures(examples):
    told = " ".join(verdict(examples["one seed"]()).sentences)
    assert "On 304 held-out passages the student’s loss is 4.64 [4.59, 4.70]" in told
    assert "−0.10 [−0.12, −0.08], better, beyond chance" in told
    assert "training closed 85% of the gap" in told
    assert "One seed" in told


def test_a_few_units_have_no_verdict(examples):
    report = examples["one seed"]()
    few = replace(report, paired=tuple(replace(one, n=9) for one in report.paired))
    few = replace(few, rows=tuple(replace(row, n=9) for row in report.rows))
    found = verdict(few)
    assert (found.headline, found.tone) == ("No verdict: 9 held-out passages are too few to tell.", "open")
    assert "beyond chance" not in " ".join(found.sentences)


def test_with_several_seeds_it_is_said_what_the_intervals_cover(examples):
    told = " ".join(verdict(examples["three seeds"]()).sentences)
    assert "Means of 3 seeds; the intervals cover chance in the text and in the training. Single seeds differ" in told


def test_a_missing_control_is_said(examples):
    assert "No control was trained" in verdict(examples["no control"]()).sentences[0]


def test_an_unmeasured_student_has_no_verdict(examples):
    report = examples["one seed"]()
    rows = tuple(row for row in report.rows if row.model != "student")
    assert "not evaluated" in verdict(replace(report, rows=rows)).headline


def test_a_student_past_its_teacher_or_further_off_than_before(examples):
    report = examples["one seed"]()

    def told(student: float) -> str:
        moved = [
            replace(row, value=student, low=student - 0.01, high=student + 0.01)
            if (row.model, row.metric) == ("student", "loss")
            else row
            for row in report.rows
        ]
        return " ".join(verdict(replace(report, rows=tuple(moved))).sentences)

    assert "is not ahead" in told(3.0)
    assert "further away than before training" in told(12.5)
