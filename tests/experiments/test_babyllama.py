"""The page reports gains, nulls and losses in the same words; ablations share the teachers of their base."""

import pytest

from experiments.babyllama import ABLATIONS, BASE, METRICS, OWN, _recipe, page
from experiments.sharing import beside
from potstill.metrics.results import Paired, Result
from potstill.pipeline.graph import all_steps
from potstill.pipeline.run_folder import Run
from potstill.pipeline.up_to_date import is_done

MODELS = ("teacher gpt2", "start", "student", "control")


def made_up(difference):
    rows = [Result(model, metric, 1.0, 0.9, 1.1, 10, None) for model in MODELS for metric in METRICS]
    low, high = difference - 0.1, difference + 0.1
    pairs = [
        Paired("student", model, metric, difference, low, high, 10, 0.5 if low < 0 < high else 0.001, None)
        for model in MODELS
        if model != "student"
        for metric in METRICS
    ]
    return rows, pairs


@pytest.mark.parametrize(
    ("difference", "loss", "blimp"),
    [(-0.2, "better", "worse"), (0.2, "worse", "better"), (0.0, "no different beyond chance", "no different beyond c")],
)
def test_a_claim_follows_from_the_interval(difference, loss, blimp):
    figures = {name: {metric: [1.0, 1.1, 1.2] for metric in METRICS} for name in ABLATIONS}
    text = page(*made_up(difference), figures)
    assert f"- Student against control, loss: **{loss}" in text
    assert f"- Student against teacher gpt2, blimp: **{blimp}" in text
    assert "against start" not in text
    assert all(name in text for name in ABLATIONS)


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_changes_the_recipe_it_is_named_after(name):
    recipe, base = _recipe(ABLATIONS[name]), _recipe(ABLATIONS[BASE])
    assert (recipe == base) is (name == BASE)
    assert len(recipe.pretrain) == (1 if "alone" in name else 2)
    assert "pretrain/llama" in [str(step) for step in all_steps(base)]


def test_a_run_beside_another_has_its_teachers_and_not_its_students(tmp_path):
    base = Run(tmp_path / "base")
    for file in ("pretrain/gpt2/model/weights", "corpus/train/rows", "distil/seed-0/student/weights", "evaluate/x"):
        (base.folder / file).parent.mkdir(parents=True, exist_ok=True)
        (base.folder / file).write_text(file)
    run = beside(base, tmp_path / "other", OWN)
    assert (run.folder / "pretrain/gpt2/model/weights").read_text() == "pretrain/gpt2/model/weights"
    assert not (run.folder / "distil").exists()
    assert not (run.folder / "evaluate").exists()
    assert not any(is_done(_recipe([]), run, step) for step in all_steps(_recipe([])))
    assert beside(base, tmp_path / "other", OWN).folder == run.folder
