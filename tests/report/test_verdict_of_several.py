"""The verdict on several students lists all students, and does not count a gain of a placebo as the teacher's."""

from dataclasses import replace

import pytest

from potstill.metrics.results import Paired, Result, Spread
from potstill.report.data import Metric, Report
from potstill.report.verdict import verdict

ACCURACY = Metric("accuracy", "Accuracy", "right answers", "higher", percent=True)


def row(model: str, value: float = 0.4) -> Result:
    return Result(model, "accuracy", value, value - 0.02, value + 0.02, 1319)


def pair(a: str, b: str, difference: float, p: float | None = None) -> Paired:
    beyond = abs(difference) > 0.02
    p = (0.001 if beyond else 0.5) if p is None else p
    return Paired(a, b, "accuracy", difference, difference - 0.02, difference + 0.02, 1319, p)


def told(control: dict[str, float], start: float | dict[str, float] = 0.1, placebo: float | None = None) -> Report:
    """Students by name, with their differences from the control and the start; `base` has the placebo `other`."""
    names = [f"student {name}" for name in control]
    pairs = [pair(f"student {name}", "control", value) for name, value in control.items()]
    starts = start if isinstance(start, dict) else dict.fromkeys(control, start)
    pairs += [pair(f"student {name}", "start", value) for name, value in starts.items()]
    pairs += [pair("student base", "student other", placebo)] if placebo is not None else []
    rows = [row("teacher", 0.8), row("start", 0.2), row("control"), *(row(name) for name in names)]
    return Report(
        *"trsvdhc",
        rows=tuple(rows),
        paired=tuple(pairs),
        metrics=(ACCURACY,),
        units="held-out questions",
        asks=True,
        placebos=("student other",) if placebo is not None else (),
    )


@pytest.mark.parametrize(
    ("report", "tone", "headline"),
    [
        (
            told({"base": 0.05, "ground-truth": 0.08, "teacher": 0.0, "confidence": 0.01}),
            "good",
            "2 of 4 experiments beat the control: base, ground-truth.",
        ),
        (told({"base": 0.05, "teacher": 0.06}), "good", "Both experiments beat the control: base, teacher."),
        (told({"base": 0.0, "teacher": 0.01}), "open", "No experiment beats the control beyond chance."),
        (told({"base": -0.05, "teacher": 0.0}), "bad", "No experiment beats the control. 1 does worse: base."),
        (
            told({"base": 0.05, "teacher": -0.05, "confidence": -0.06}),
            "open",
            "1 of 3 experiments beats the control: base. 2 do worse: teacher, confidence.",
        ),
        (
            told({"base": 0.05, "teacher": 0.05, "other": 0.05}, placebo=0.0),
            "open",
            "Both experiments beat the control: base, teacher. No better than its placebo: base.",
        ),
        (
            told({"base": 0.05, "teacher": 0.05, "other": 0.0}, placebo=0.05),
            "good",
            "Both experiments beat the control: base, teacher.",
        ),
        (told({"base": 0.0, "other": 0.05}, placebo=-0.05), "open", "No experiment beats the control beyond chance."),
        (told({"base": 0.05, "other": 0.0}, placebo=0.05), "good", "The experiment beats the control: base."),
        (
            told({"base": 0.05, "teacher": 0.05}, start={"base": -0.1, "teacher": 0.0}),
            "open",
            "Both experiments beat the control: base, teacher. Worse than before training: base. "
            "No better than before training: teacher.",
        ),
    ],
)
def test_every_outcome_has_its_headline(report, tone, headline):
    found = verdict(report)
    assert found.headline == headline
    assert found.tone == tone


def test_without_a_control_the_start_is_compared_and_nothing_is_said_of_the_teacher():
    report = told({"base": 0.05, "teacher": 0.06}, start={"base": 0.05, "teacher": 0.0})
    found = verdict(
        replace(
            report,
            rows=tuple(row for row in report.rows if row.model != "control"),
            paired=tuple(pair for pair in report.paired if pair.b != "control"),
        )
    )
    assert found.headline.startswith("1 of 2 experiments is better than before training: base. Whether the teacher")
    assert found.tone == "open"
    assert "no control was trained on the same answers" in found.sentences[0]


def test_a_gain_that_only_luck_among_many_explains_is_no_gain():
    report = told({"base": 0.03, "a": 0.0, "b": 0.0, "c": 0.0})
    one = replace(report.paired[0], p=0.03)
    found = verdict(replace(report, paired=(one, *report.paired[1:])))
    assert found.headline == "No experiment beats the control beyond chance."
    assert "within chance after the correction for all students (p\u00a0=\u00a00.12)" in found.sentences[1]


def test_a_gain_whose_interval_over_the_seeds_holds_zero_is_no_gain():
    report = told({"base": 0.05, "teacher": 0.0})
    one = replace(report.paired[0], low=-0.01, high=0.11, p=0.07, over_units=(0.04, 0.06), seeds=Spread((0.11, -0.01)))
    assert "No experiment" in verdict(replace(report, paired=(one, *report.paired[1:]))).headline


def test_few_questions_have_no_verdict():
    report = told({"base": 0.05, "teacher": 0.0})
    few = replace(
        report,
        rows=tuple(replace(row, n=8) for row in report.rows),
        paired=tuple(replace(pair, n=8) for pair in report.paired),
    )
    found = verdict(few)
    assert found.headline == "No verdict: 8 held-out questions are too few to tell."
    assert found.tone == "open"
    assert "too few to tell" in found.sentences[1]
    assert "beyond chance" not in " ".join(found.sentences)


def test_every_student_has_its_sentence_in_the_recipes_order(examples):
    found = verdict(examples["matrix"]())
    assert [sentence.split(":")[0] for sentence in found.sentences[1:6]] == [
        "Student base",
        "Student ground-truth",
        "Student teacher",
        "Student confidence",
        "Student another-question (a placebo",
    ]
    assert "the gain does not come from the teacher’s knowledge" in found.sentences[1]
    assert "The teacher, at" in found.sentences[6]
    assert len(found.figures) == 5
    assert found.headline.startswith(
        "2 of 4 experiments beat the control: base, ground-truth. 1 does worse: confidence."
    )


def test_a_gain_over_the_placebo_is_said():
    found = verdict(told({"base": 0.05, "other": 0.0}, placebo=0.05))
    assert "over its placebo too" in found.sentences[1]


def test_a_student_that_was_not_evaluated_leaves_no_verdict():
    report = told({"base": 0.05, "teacher": 0.0})
    rows = (*report.rows[:-1], replace(report.rows[-1], metric="loss"))
    assert verdict(replace(report, rows=rows)).headline == "No verdict: the students were not evaluated."
