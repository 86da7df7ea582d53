"""Scores of snapshots are drawn with intervals, beside teacher and start, and with a ring for the chosen one."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from potstill.report import snapshot_curves
from potstill.report.data import HELD_OUT_METRICS, SnapshotPoint
from potstill.report.page import render

LOSS = HELD_OUT_METRICS[0]
LOSSES = (6.0, 4.2, 3.9, 4.0)


def rows(start=11.0, split="reporting", seeds=(0,)):
    """Damage and recovery: a student that is chosen at step 300, its control, a teacher, and the start."""
    trained = [
        SnapshotPoint(
            model, seed, 100 * at, "loss", split, value + shift, value + shift - 0.1, value + shift + 0.1, at == 3
        )
        for model, shift in (("student", 0.0), ("control", 0.2))
        for seed in seeds
        for at, value in enumerate(LOSSES, 1)
    ]
    across = [SnapshotPoint("teacher", None, None, "loss", split, 3.4, 3.3, 3.5)]
    return (*across, SnapshotPoint("start", None, 0, "loss", split, start, start - 0.1, start + 0.1), *trained)


def labels(svg):
    return [label for node in ElementTree.fromstring(svg).iter() if (label := node.get("aria-label"))]


@pytest.fixture
def page(examples):
    return lambda snapshots: replace(examples["one seed"](), snapshots=snapshots)


def test_every_point_says_what_it_is(page):
    (panel,) = snapshot_curves.panels(page(rows()))
    assert (panel["label"], panel["better"]) == ("Loss", "lower")
    told = labels(panel["svg"])
    assert "Student, step 300: Loss 3.9 [3.8, 4], chosen" in told
    assert "Control, step 100: Loss 6.2 [6.1, 6.3]" in told


def test_a_start_far_off_is_said_and_not_drawn(page):
    (far,), (near,) = snapshot_curves.panels(page(rows(start=40.0))), snapshot_curves.panels(page(rows(start=6.5)))
    assert far["about"] == "held out; off the chart: Student before 40"
    assert near["about"] == "held out"
    assert near["svg"].count("var(--start)") == far["svg"].count("var(--start)") + 1


def test_each_metric_on_each_split_has_a_chart(page):
    panels = snapshot_curves.panels(page(rows() + rows(split="selection", seeds=(0, 1))))
    assert [panel["about"].partition(";")[0] for panel in panels] == ["held out", "on the items of the selection"]
    assert any("Student (seed 1), step 400" in label for label in labels(panels[1]["svg"]))


def test_a_metric_that_the_page_does_not_know_is_drawn_by_its_name(page):
    snapshots = tuple(replace(one, metric="lambada/acc") for one in rows())
    assert snapshot_curves.panels(page(snapshots))[0]["label"] == "lambada/acc"


def test_steps_that_are_dense_early_are_drawn_at_equal_ratios():
    geometric = [replace(one, step=10 ** (one.step // 100)) for one in rows() if one.step]
    even = [one for one in rows() if one.step]
    assert snapshot_curves.chart(LOSS, geometric) != snapshot_curves.chart(LOSS, even)
    assert snapshot_curves._x(geometric)["scale"]["type"] == "log"
    assert "type" not in snapshot_curves._x(even)["scale"]


def test_the_page_has_the_section_only_where_something_was_measured(page):
    assert "Snapshots during training" in render(page(rows()))
    assert "Snapshots during training" not in render(page(()))
