"""The figures of written samples are means over all of them since the last log."""

import pytest
import torch

from potstill.on_policy.figures import StepFigures
from potstill.on_policy.prompts import SamplePrompt
from potstill.on_policy.rollouts import Rollout


def rollout(length, finished, written_at=0):
    return Rollout(SamplePrompt([5]), [8] * length, finished, written_at)


def scores(*values):
    return {name: torch.tensor(values) for name in ("entropy", "reverse_kl", "overlap", "student_log_probs")}


def test_nothing_is_logged_without_a_written_sample():
    assert StepFigures(torch.device("cpu")).as_log() == {}


def test_figures_are_means_over_rollouts_and_over_tokens():
    figures = StepFigures(torch.device("cpu"))
    figures.add([rollout(2, True), rollout(6, False)], step=0)
    figures.add_scores(scores(1.0, 2.0))
    figures.add([rollout(4, True)], step=2)
    figures.add_scores(scores(6.0))
    figures.add_trained(12)
    log = figures.as_log()
    assert log["on_policy/length"] == 4
    assert log["on_policy/stopped"] == pytest.approx(2 / 3)
    assert log["on_policy/age"] == pytest.approx(2 / 3)
    assert log["on_policy/entropy"] == log["on_policy/kl"] == pytest.approx(3)
    assert log["on_policy/tokens"] == 12
    assert figures.last_length() == 4
    assert figures.last_entropy() == pytest.approx(6)
    figures.clear()
    assert figures.as_log() == {}


def test_each_part_of_the_work_has_its_time():
    figures = StepFigures(torch.device("cpu"))
    figures.add([rollout(8, True)], step=0)
    figures.add_trained(8)
    for part in ("write", "step"):
        with figures.timed(part):
            torch.randn(300, 300) @ torch.randn(300, 300)
    log = figures.as_log()
    assert 0 < log["on_policy/time_writing"] < 1
    assert log["on_policy/written_per_second"] > 0
    assert log["on_policy/trained_per_second"] > 0
    assert "on_policy/scored_per_second" not in log
