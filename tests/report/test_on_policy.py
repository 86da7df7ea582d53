"""What a student wrote in training: its figures over steps, its KL by position, and its answers early and late."""

import math
import re
from dataclasses import replace
from html import unescape
from xml.etree import ElementTree

import numpy as np
import pytest

from potstill.report import on_policy
from potstill.report.charts import looks_of
from potstill.report.data import Curve, ReportedRollouts, ShownRollout
from potstill.report.page import render

BAD = "<script>window.broken = 1</script> & \"quotes\" 'too'"
FIGURES = {
    "length": 40.0,
    "stopped": 0.75,
    "entropy": 0.9,
    "kl": 0.2,
    "overlap": 0.8,
    "age": 0.0,
    "tokens": 480.0,
    "written_per_second": 300.0,
    "scored_per_second": 2100.0,
    "trained_per_second": 900.0,
    "time_writing": 0.62,
}


def training(model="student", steps=30, lengths=(1, 2, 3, 12), **figures):
    """The KL at position p of step s is p / s."""
    points = tuple({"step": step, **FIGURES, **figures} for step in range(1, steps + 1))
    rollouts = tuple(
        (step, tuple(place / step for place in range(1, length + 1)))
        for step in range(1, steps + 1)
        for length in lengths
    )
    early = (ShownRollout(1, 1, "What is 2 + 2?", ((" 4", 0.25), ("\n", 0.75)), stopped=True),)
    late = (ShownRollout(30, 28, BAD, ((BAD, 0.125),), stopped=False),)
    return ReportedRollouts(Curve(model, 0, points), rollouts, early, late, "The student can learn on-policy.")


def labels(svg):
    return [label for node in ElementTree.fromstring(svg).iter() if (label := node.get("aria-label"))]


def texts(svg):
    return [node.text for node in ElementTree.fromstring(svg).iter() if node.text and node.text.strip()]


def part(html):
    """The section of the page."""
    return html.partition('aria-labelledby="on-policy"')[2].partition("</section>")[0]


@pytest.fixture
def page(examples):
    def page(*trainings):
        return part(render(replace(examples["one seed"](), on_policy=trainings)))

    return page


@pytest.fixture(scope="module")
def shown(examples):
    return part(render(replace(examples["one seed"](), on_policy=(training(),))))


def test_a_run_without_written_answers_has_no_section(page):
    assert on_policy.section(()) is None
    assert page() == ""


def test_the_page_tells_figures_speed_and_preflight(shown):
    for said in (
        "The student can learn on-policy.",
        "Stopped by itself",
        "KL(student ‖ teacher)",
        "Overlap",
        "KL by position",
        "Points are steps",
        "Written<small>tokens/s</small>",
        "<td>300</td><td>2,100</td><td>900</td><td>62%</td><td>480</td>",
    ):
        assert said in shown
    assert "Age" not in shown
    assert shown.count("<details") == 0


def test_answers_are_shown_early_and_late_as_text(shown):
    assert "Step 1</b> <small>stopped by itself · 2 tokens · KL 0.5 nats" in shown
    assert "Step 30, written at 28</b> <small>cut at the limit · 1 token · KL 0.125 nats" in shown
    assert shown.index("The first answers") < shown.index("What is 2 + 2?") < shown.index("The last answers")
    assert "<script>" not in shown
    assert unescape(shown).count(BAD) == 2
    assert 'style="--heat:100%" title="KL 0.25 nats"> 4</span>' in shown
    assert "↵\n</span>" in shown


def test_several_students_share_the_charts_and_have_their_names(examples):
    names = ["student base", "student teacher"]
    report = replace(examples["matrix of one seed"](), on_policy=tuple(map(training, names)))
    shown = part(render(report))
    assert "Before the training, Student base." in shown
    assert "KL by position, Student teacher" in shown
    assert shown.count("<b>Length</b>") == 1
    assert shown.count("<details><summary>Student") == 2
    svg = on_policy.chart(on_policy.QUANTITIES[0], [training(name).curve for name in names], looks_of(names))
    assert labels(svg)[-1] == "step 30: Student base 40, Student teacher 40"


def test_the_age_is_drawn_where_there_is_one(page):
    assert "steps since the answers were written" in page(training(age=1.5))


def test_a_figure_that_was_not_logged_is_left_out(page):
    points = tuple({"step": step, "length": 4.0} for step in (1, 2))
    shown = page(replace(training(), curve=Curve("student", 0, points), preflight=""))
    assert "<b>Length</b>" in shown
    for name in ("<b>Overlap</b>", "tokens/s", "Before the training"):
        assert name not in shown


def test_answers_without_a_kl_are_shown_without_colours(page):
    answer = ShownRollout(3, 3, "p", (("a", None), ("b", math.nan)), stopped=True)
    shown = page(replace(training(), rollouts=((3, ()),), early=(answer,), late=()))
    assert "3</b> <small>stopped by itself · 2 tokens</small>" in shown
    assert "--heat" not in shown
    assert "KL by position" not in shown
    assert "The last answers" not in shown


def test_long_answers_are_cut_on_the_page(page):
    answer = ShownRollout(1, 1, "p", tuple(("x", 0.1) for _ in range(1000)), stopped=False)
    shown = page(replace(training(), early=(answer,), late=()))
    assert shown.count(">x</span>") == on_policy.MOST_TOKENS
    assert "1,000 tokens" in shown
    assert f"… {1000 - on_policy.MOST_TOKENS} more tokens" in shown


def test_bins_double_and_hold_every_token():
    rollouts = [(1, tuple(float(place) for place in range(1, length + 1))) for length in (1, 3, 12)]
    found = on_policy.by_position(rollouts)
    assert [(one.first, one.last, one.tokens) for one in found] == [(1, 1, 3), (2, 3, 4), (4, 7, 4), (8, 12, 5)]
    assert [one.kl for one in found] == [1.0, 2.5, 5.5, 10.0]
    assert sum(one.tokens for one in found) == 16
    assert [one.low for one in found] == [None] * 4
    assert on_policy.by_position([]) == on_policy.by_position([(1, ())]) == []


def test_intervals_are_over_answers():
    random = np.random.default_rng(0)
    rollouts = [(1, tuple(random.gamma(2, 0.1, 4))) for _ in range(40)]
    for one in on_policy.by_position(rollouts):
        assert one.low < one.kl < one.high
        assert one.kl == pytest.approx(0.2, abs=0.06)
    every = on_policy.by_position([(1, (0.1,) * 2)] * 9)
    assert {(one.low, one.high) for one in every} == {(None, None)}


def test_the_first_and_the_last_third_of_the_steps_are_compared():
    sets = on_policy._sets(training().rollouts)
    assert {name: (each[0][0], each[-1][0]) for name, each in sets.items()} == {
        "steps 1 to 10": (1, 10),
        "steps 21 to 30": (21, 30),
    }
    told = labels(on_policy.section([training()])["positions"][0]["svg"])
    assert any(re.fullmatch(r"steps 1 to 10, token 1: KL 0\.293 \[.*\] nats over 40 tokens", one) for one in told)
    assert any(one.startswith("steps 21 to 30, tokens 8 to 12: KL 0.397 [") for one in told)


@pytest.mark.parametrize(
    ("steps", "names"),
    [([5], ["step 5"]), ([1, 2], ["steps 1 to 1", "steps 2 to 2"]), ([9, 1, 5], ["steps 1 to 1", "steps 9 to 9"])],
)
def test_few_steps_are_enough_for_a_chart(steps, names, page):
    # Rounding may make a KL of equal models negative.
    rollouts = tuple((step, (-1e-9,)) for step in steps)
    assert list(on_policy._sets(rollouts)) == names
    assert all(name in page(replace(training(), rollouts=rollouts)) for name in names)


def test_the_number_of_tokens_stands_above_each_bin():
    (one,) = on_policy.section([training(lengths=(1, 3))])["positions"]
    counts = texts(one["svg"])
    assert [counts.count(number) for number in ("20",)] == [4]
    assert [on_policy._short(count) for count in (960, 1200, 12_345)] == ["960", "1.2k", "12k"]


def test_a_wide_interval_does_not_shrink_the_curve():
    rollouts = [(1, (0.1 if number else 900.0,)) for number in range(12)]
    svg = on_policy.position_chart({"step 1": rollouts}, looks_of([]))
    (axis,) = [label for label in labels(svg) if label.startswith("Y-axis")]
    assert axis.endswith("from 0 to 112.6")


def test_long_trainings_are_averaged_and_smoothed(page):
    random = np.random.default_rng(0)
    points = tuple({"step": step, "length": float(random.normal(40, 5))} for step in range(1, 2001))
    curve = Curve("student", 0, points)
    told = labels(on_policy.chart(on_policy.QUANTITIES[0], [curve]))
    said = [float(one.rpartition(" ")[2]) for one in told if one.startswith("step ")]
    assert len(said) <= on_policy.MOST_POINTS
    assert all(38 < value < 42 for value in said)
    assert "Points are means of neighbouring steps" in page(replace(training(), curve=curve))


def test_a_running_mean_keeps_the_mean_of_a_line():
    line = [(step, float(step)) for step in range(60)]
    smooth = on_policy._running_mean(line)
    assert smooth[30] == (30, 30.0)
    assert smooth[0] == (0, 1.5)
    assert on_policy._running_mean(line[:19]) == line[:19]
