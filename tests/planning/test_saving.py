"""What a training writes and reads at each save."""

import pytest

import minimal
from potstill.planning.amounts import amounts_of
from potstill.planning.jobs import ReadingJob, Situation, TrainingJob, WaitingJob
from potstill.planning.models import models_of
from potstill.planning.saving import FILE_BYTES_PER_SECOND, saves_of
from potstill.planning.stage_jobs import jobs_of
from potstill.recipe.step import Step
from tiny import llama, save_model


@pytest.fixture
def saves(tmp_path):
    """The training of a recipe, and what it does at its saves: waiting, and reading."""
    save_model(llama(), tmp_path / "teacher")

    def of(*overrides, keep="last"):
        recipe = minimal.recipe(tmp_path, f"teachers.t.model={tmp_path / 'teacher'}", *overrides)
        at = Situation(recipe, models_of(recipe, {}, ask_hub=False), amounts_of(recipe, None, None), "fp32")
        training = next(one for one in jobs_of(Step("distil", seed=0), at) if isinstance(one, TrainingJob))
        found = list(saves_of(at, training, keep))
        return training, *([one for one in found if isinstance(one, kind)] for kind in (WaitingJob, ReadingJob))

    return of


@pytest.mark.parametrize(
    ("fields", "least", "most"),
    [
        ("max_steps: 40, save_steps: 10", 4, 5),
        ("max_steps: 40, save_steps: 0.25", 4, 4),
        ("max_steps: 40, save_strategy: epoch, num_train_epochs: 2", 2, 2),
        ("max_steps: 40, save_strategy: 'no'", 0, 0),
        ("max_steps: 40", 0.08, 1.08),
    ],
)
def test_a_checkpoint_has_weights_and_the_state_of_the_optimizer(saves, fields, least, most):
    training, (waiting,), reading = saves(f"distil.training={{{fields}}}")
    weights = 4.0 * training.student.parameters.total
    assert waiting.seconds.high * FILE_BYTES_PER_SECOND.low == pytest.approx((1 + 3 * most) * weights)
    assert waiting.seconds.low * FILE_BYTES_PER_SECOND.high == pytest.approx((1 + 3 * least) * weights)
    assert reading == []


def test_the_best_weights_are_found_on_the_validation_samples(saves):
    settings = "distil.training={max_steps: 40, save_steps: 10}", "corpus.validation=6"
    training, _, (reading,) = saves(*settings, keep="best")
    assert reading.batch.rows == 6
    assert reading.batch.length == training.batch.length
    assert reading.tokens.low == 4 * 6 * training.batch.length
    assert saves(*settings)[2] == []
