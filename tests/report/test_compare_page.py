import re
from dataclasses import replace

import pytest

from potstill.report.compare_page import ComparedRun, has_points, render_comparison
from potstill.report.data import ANSWER_METRICS, HELD_OUT_METRICS


@pytest.fixture
def one(examples):
    report = examples["one seed"]()
    return ComparedRun("first", report.rows, report.speed, HELD_OUT_METRICS[0])


def test_every_model_of_every_run_is_on_the_page(one):
    page = render_comparison([one, replace(one, name="second")])
    for run in ("first", "second"):
        for model in ("teacher", "student", "control"):
            assert f"{run}: {model}" in page
    assert page.count("<svg") == 2
    assert "Quality against speed" in page
    assert not re.search(r"https?://(?!www\.w3\.org)", page), "no network"


def test_a_run_without_points_is_named(one):
    page = render_comparison([one, replace(one, name="slow", speed=None)])
    assert "slow is left out" in page
    assert has_points(one)
    assert not has_points(replace(one, speed=None))
    assert not has_points(replace(one, rows=tuple(row for row in one.rows if row.model != "start")))


def test_metrics_are_not_drawn_together(one, examples):
    report = examples["matrix"]()
    page = render_comparison([one, ComparedRun("asked", report.rows, report.speed, ANSWER_METRICS[0])])
    assert page.count("<svg") == 4
    assert "in accuracy" in page
    assert "in loss" in page


def test_other_machines_are_told(one):
    page = render_comparison([one, replace(one, name="b", speed=replace(one.speed, device="NVIDIA H100"))])
    assert "cpu, 2 threads and on NVIDIA H100" in page


def test_names_are_text(one):
    page = render_comparison([replace(one, name="<script>alert(1)</script>")])
    assert "<script>" not in page
