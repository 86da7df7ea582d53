"""Warnings stand on the page beside the verdict."""

from dataclasses import replace

from potstill.report.page import render
from potstill.report.warnings import all_tied, ended_early, few_units, trials_tied


def test_each_training_whose_snapshots_tied_is_named():
    assert all_tied(["facts/em"], {}) == ()
    (said,) = all_tied(["facts/em", "loss"], {"student": [0, 1], "control": [1]})
    assert "by facts/em and loss, no snapshot of student (seed 0, 1) and control (seed 1) differs from another" in said


def test_metrics_of_a_few_units_are_named_with_their_number(examples):
    report = examples["one seed"]()
    assert few_units(report) == ()
    few = replace(report, rows=tuple(replace(row, n=7) if row.metric == "loss" else row for row in report.rows))
    assert few_units(few) == ("Only 7 units for loss: fewer than 10 are too few to tell a difference from chance.",)


def test_warnings_are_on_the_page(examples):
    report = replace(examples["one seed"](), warnings=(trials_tied(5),))
    few = replace(report, paired=tuple(replace(pair, n=7) for pair in report.paired))
    page = render(replace(few, rows=tuple(replace(row, n=7) for row in few.rows)))
    assert "Search: the 5 trials have the same validation loss" in page
    assert "Only 7 units for loss, " in page
    assert "? too few to tell" in page
    assert "<b>No verdict" not in page
    assert "No verdict: 7 held-out passages are too few to tell." in page
    assert "✓</span>" not in page
    assert "too few to tell" not in render(examples["one seed"]())


def test_a_training_that_ended_early_is_named():
    assert ended_early({}) == ()
    (said,) = ended_early({"student, seed 1": "Its answers grew."})
    assert said.startswith("On-policy: the training of student, seed 1 ended early")
    assert said.endswith("Its answers grew.")
