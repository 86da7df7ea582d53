"""control: train the student's start without a teacher.

The control has the student's start, the student's samples in the student's order, and cross-entropy as its only loss.
Makes `control/seed-N/`.
"""

from typing import Any

from potstill.losses.loss import Loss
from potstill.pipeline import training_data
from potstill.pipeline.work import Made, Work
from potstill.recipe import Recipe
from potstill.recipe.candidates import Candidate
from potstill.recipe.distributed import training_fields
from potstill.stages.distil import student_fit
from potstill.training.arguments import check_training
from potstill.training.fit import fit

KEY = "control.training"


def run(work: Work) -> Made:
    """Train the control of one seed."""
    seed = work.step.seed
    assert seed is not None
    data = training_data.for_candidate(work, Candidate("control", None, seed))
    return Made(*fit(student_fit(work, data, [Loss("cross_entropy")], _training(work.recipe), KEY, seed)))


def check(recipe: Recipe) -> None:
    """Refuse fields of `control.training` that transformers refuses."""
    check_training(_training(recipe), KEY, recipe.seeds[0], recipe.distil.keep)


def _training(recipe: Recipe) -> dict[str, Any]:
    assert recipe.control is not None
    return training_fields(recipe, {**recipe.distil.training, **recipe.control.training})
