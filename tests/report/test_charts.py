"""Charts are well-formed SVG in the page's colours, and stay readable if one model is far away from the others."""

import itertools
import math
import re
from dataclasses import replace
from importlib import resources
from xml.etree import ElementTree

import pytest

from potstill.report import charts
from potstill.report.data import HELD_OUT_METRICS, Curve

LOSS = HELD_OUT_METRICS[0]
SVG = "{http://www.w3.org/2000/svg}"


def labels(svg: str) -> list[str]:
    return [label for node in ElementTree.fromstring(svg).iter() if (label := node.get("aria-label"))]


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.fixture
def rows(examples):
    return [row for row in examples["three seeds"]().rows if row.metric == "loss"]


def test_every_model_is_drawn_with_its_value(rows):
    svg = charts.intervals(LOSS, rows)
    assert {"Teacher", "Student", "Control", "Student before", "4.64", "11.45"} <= set(texts(svg))
    assert any("Student: Loss 4.64 [" in label for label in labels(svg))
    assert "var(--student)" in svg


def test_a_start_far_off_does_not_squeeze_the_others(rows):
    low, high = charts.domain(rows)
    assert 3 < low < 3.6
    assert 4.7 < high < 5.5


def test_a_start_nearby_is_drawn_to_scale(rows):
    near = [replace(row, value=5.1, low=5.0, high=5.2) if row.model == "start" else row for row in rows]
    assert charts.domain(near)[1] > 5.2


def test_an_interval_that_reaches_far_out_ends_where_the_axis_does(rows):
    wide = [replace(row, value=4.0, low=3.5, high=90.0) if row.model == "start" else row for row in rows]
    assert charts.domain(wide)[1] < 10
    lines = re.findall(r'translate\(([-\d.]+),[-\d.]+\)" x2="([-\d.]+)"', charts.intervals(LOSS, wide))
    ends = [float(at) + float(length) for at, length in lines]
    assert max(ends) <= charts.WIDTH - charts.LEFT - charts.RIGHT


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_one_model_without_width_still_has_an_axis(rows, value):
    low, high = charts.domain([replace(rows[0], value=value, low=value, high=value, seeds=None)])
    assert low < value < high


def test_differences_are_drawn_against_zero(examples):
    pairs = [pair for pair in examples["negative"]().paired if (pair.b, pair.metric) == ("control", "loss")]
    svg = charts.differences(LOSS, pairs)
    assert "Student − control" in texts(svg)
    assert "var(--bad)" in svg


def test_long_logs_are_averaged_and_told_on_hover():
    points = tuple({"step": step, "loss": float(step % 2)} for step in range(1, 1001))
    svg = charts.curve("loss", [Curve("student", 0, points)])
    told = [label for label in labels(svg) if label.startswith("step ")]
    assert len(told) == charts.POINTS
    assert told[-1] == "step 1,000: Student 0.5"


def test_what_is_not_finite_is_left_out_of_the_drawing(rows):
    endless = [
        replace(row, value=math.inf, low=math.inf, high=math.inf) if row.model == "start" else row for row in rows
    ]
    assert "inf" in texts(charts.intervals(LOSS, endless))
    points = ({"step": 1, "loss": 2.0}, {"step": 2, "loss": math.nan}, {"step": 3, "loss": 1.0})
    told = [label for label in labels(charts.curve("loss", [Curve("student", 0, points)])) if "Student" in label]
    assert told == ["step 1: Student 2", "step 3: Student 1"]


def test_runs_that_saw_different_tokens_are_drawn_by_step():
    runs = [Curve("student", seed, ({"step": 1, "tokens": 100 + seed, "loss": 2.0},) * 2) for seed in (0, 1)]
    assert "step" in texts(charts.curve("loss", runs))


@pytest.mark.parametrize("highest", [1e-3, 2e-3, 5e-5])
def test_no_two_learning_rates_of_an_axis_read_the_same(highest):
    points = tuple({"step": step, "learning_rate": highest * (4 - step) / 3} for step in range(1, 5))
    told = [text for text in texts(charts.curve("learning_rate", [Curve("student", 0, points)])) if "e-" in text]
    assert len(told) > 2
    assert len(told) == len(set(told))


def test_a_term_that_only_one_run_logs(examples):
    runs = [run for run in examples["one seed"]().curves if run.model == "student"]
    assert "tokens" in texts(charts.curve("forward_kl", runs))


def test_each_of_several_students_is_drawn_in_its_own_way(examples):
    students = [f"student {number}" for number in range(12)]
    looks = charts.looks_of(students)
    assert len({looks[student] for student in students}) == 12
    neighbours = itertools.pairwise(students)
    assert all(looks[a].colour != looks[b].colour and looks[a].dash != looks[b].dash for a, b in neighbours)
    report = examples["matrix"]()
    rows = [row for row in report.rows if row.metric == "accuracy"]
    svg = charts.intervals(report.metrics[0], rows, looks_of_the(report))
    assert {"Student base", "Student teacher", "Teacher"} <= set(texts(svg))
    assert {f"var(--s{number})" for number in range(5)} <= set(re.findall(r"var\(--s\d\)", svg))


def test_every_colour_that_is_drawn_is_in_both_schemes():
    css = resources.files("potstill.report").joinpath("page.css").read_text(encoding="utf-8")
    for number in range(charts.HUES):
        assert len(re.findall(rf"--s{number}: #[0-9a-f]{{6}};", css)) == 2


def test_students_minus_the_control_have_names(examples):
    report = examples["matrix"]()
    pairs = [pair for pair in report.paired if (pair.b, pair.metric) == ("control", "accuracy")]
    svg = charts.differences(report.metrics[0], pairs, lambda pair, metric: "within chance")
    assert {"Student base", "Student another-question"} <= set(texts(svg))
    assert any(label.startswith("Student base − control: +") for label in labels(svg))
    assert "var(--good)" not in svg


def test_seeds_of_several_students_are_drawn_behind_their_mean():
    values = {"student a": (1.0, 3.0), "student b": (5.0, 7.0)}
    runs = [
        Curve(model, seed, tuple({"step": step, "loss": value} for step in (1, 2)))
        for model, each in values.items()
        for seed, value in enumerate(each)
    ]
    svg = charts.curve("loss", runs, charts.looks_of(list(values)))
    assert [label for label in labels(svg) if label.startswith("step 1")] == ["step 1: Student a 2, Student b 6"]
    assert svg.count('stroke="var(--s1)"') == 3


def looks_of_the(report):
    return charts.looks_of([row.model for row in report.rows if row.metric == "accuracy" and "student " in row.model])
