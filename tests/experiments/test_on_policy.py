"""The page has every model, its claims and its starts; the recipes of all parts are valid; equal time has its steps."""

import numpy as np
import pytest

from experiments.on_policy import (
    ALL,
    HALF,
    HERE,
    METRICS,
    NAMES,
    OF_STARTS,
    OFF_POLICY,
    ON_POLICY,
    PRIVILEGED,
    QUICK,
    QUICK_MODELS,
    SAME_TIME,
    SHOWN,
    STARTS,
    Parts,
    Row,
    Start,
    page,
    steps_in_the_time,
)
from potstill.metrics.bootstrap import Sums
from potstill.recipe import load_recipe

QUESTIONS = 40
PREFLIGHT = {
    "kl": {"value": 0.3, "low": 0.2, "high": 0.4},
    "overlap": {"value": 0.9, "low": 0.8, "high": 1.0},
    "stopped": {"value": 0.5, "low": 0.4, "high": 0.6},
    "verdict": "start_off_policy_first",
    "sentence": "Start off-policy first: it said so.",
}


def a_row(right=20, seconds=(10.0, 20.0, 30.0)):
    """Three seeds that answer the same number of questions right, each other ones."""
    answers = np.zeros((3, QUESTIONS))
    for seed in range(3):
        answers[seed, seed : seed + right] = 1
    return Row(dict.fromkeys(METRICS, Sums(answers, np.ones_like(answers))), seconds, [0.25] * 3)


def a_page(**other):
    rows = {label: other.get(label.removeprefix("student "), a_row()) for label in NAMES}
    starts = {name: Start(PREFLIGHT, a_row(), a_row(), a_row()) for name in (*STARTS, "small")}
    return page(rows, starts, PREFLIGHT, 150)


@pytest.mark.parametrize("more", [[], QUICK])
def test_each_part_is_a_recipe(tmp_path, more):
    parts = Parts(tmp_path, more)
    whole = parts.recipe()
    assert {f"student {name}" for name in whole.variants} < set(NAMES)
    assert whole.on_policy_of(OFF_POLICY) is None
    assert all(whole.on_policy_of(name) is not None for name in ON_POLICY if name in whole.variants)
    longer = parts.recipe(experiments={SAME_TIME: {}}, control=None, distil__training__max_steps=150)
    assert longer.distil.training["max_steps"] == 150
    alone = {"experiments": PRIVILEGED, "strategies": {"ground-truth": SHOWN}, "control": None, "capture": None}
    assert parts.recipe(**alone).on_policy_of("privileged").share == 1
    for name in STARTS:
        recipe = parts.recipe(student=parts.start_of(name), experiments=OF_STARTS, control=None)
        assert recipe.on_policy_of(ALL).preflight == "refuse"
        assert recipe.corpus == whole.corpus, "the starts are judged on the same questions"


@pytest.mark.parametrize("more", [[], QUICK_MODELS])
def test_the_models_read_the_prompts_of_the_students(more):
    recipe = load_recipe(str(HERE / "on_policy_models.yaml"), more)
    assert recipe.strategies["ground-truth"].model_dump(exclude_unset=True) == SHOWN
    held_out = load_recipe(str(HERE / "on_policy.yaml")).corpus.held_out
    assert held_out <= load_recipe(str(HERE / "on_policy_models.yaml")).corpus.held_out


def test_equal_time_is_the_median_over_seeds():
    rows = {f"student {OFF_POLICY}": a_row(seconds=[10, 10, 10]), f"student {HALF}": a_row(seconds=[25, 30, 99])}
    assert steps_in_the_time(60, rows) == 180


@pytest.mark.parametrize(
    ("right", "told"), [(35, "better"), (5, "worse"), (20, "no different beyond chance"), (21, "no different beyond c")]
)
def test_a_claim_follows_from_the_corrected_p(right, told):
    text = a_page(half=a_row(right))
    assert f"- half on-policy, against the same steps: **{told}" in text
    assert f"- half on-policy, against the same time: **{told}" in text
    assert text.count("against the same steps: **no different beyond chance**") >= len(ON_POLICY) - 1


def test_every_model_and_every_start_has_its_figures():
    text = a_page()
    assert all(f"| {name} | 0.500 [" in text for name in NAMES.values())
    assert "| 20 | 25% |" in text
    assert "took 150 steps" in text
    for name in (*STARTS, "small"):
        assert f"| {name} | 0.300 [0.200, 0.400] | 90% | 50% | `start_off_policy_first` | 0.500 [" in text
        assert f"- {name}: Start off-policy first: it said so." in text
    assert "- itself as the teacher: Start off-policy first" in text
