"""The page reports each student's outcome by its interval, beside the placebo's."""

import pytest

from experiments.prompting import ABOUT, METRICS, page
from potstill.metrics.results import Paired, Result
from potstill.recipe import load_recipe

MODELS = ("teacher", "start", "student base", "student another-question", "control")


def made_up(difference):
    rows = [Result(model, metric, 0.5, 0.4, 0.6, 10, None) for model in MODELS for metric in METRICS]
    low, high = difference - 0.1, difference + 0.1
    p = 0.5 if low < 0 < high else 0.004
    both = [("student base", other) for other in ("start", "control", "student another-question")]
    both += [("student another-question", other) for other in ("start", "control")]
    return rows, [Paired(a, b, metric, difference, low, high, 10, p, None) for metric in METRICS for a, b in both]


@pytest.mark.parametrize(
    ("difference", "accuracy", "loss"),
    [(0.2, "better", "worse"), (-0.2, "worse", "better"), (0.0, "no different beyond chance", "no different beyond c")],
)
def test_a_claim_follows_from_the_interval(difference, accuracy, loss):
    text = page({name: made_up(difference) for name in ABOUT})
    assert text.count(f"- student base against fine-tuning, accuracy: **{accuracy}") == len(ABOUT)
    assert f"- student base against the placebo (student another-question), loss: **{loss}" in text
    assert "against start" not in text
    p = 1.0 if difference == 0 else 0.008
    assert f"p = {p:.3f} corrected" in text, "two students were compared with the control"
    assert "| student base − start |" in text


@pytest.mark.parametrize("name", ABOUT)
def test_the_recipe_ships_with_a_placebo(name):
    recipe = load_recipe(name)
    assert any(not recipe.sample_set_of(variant).own for variant in recipe.variants)
    assert recipe.control is not None
