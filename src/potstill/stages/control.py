"""control: what the same training is worth without a teacher.

The student's start, the student's samples in the student's order, cross-entropy only. Makes `control/seed-N/`.
"""

from potstill.losses.terms import Loss
from potstill.pipeline import Made, Work
from potstill.stages.distil import train


def run(work: Work) -> Made:
    """Train the control of one seed."""
    recipe = work.recipe
    assert recipe.control is not None
    training = recipe.distil.training | recipe.control.training
    return train(work, training, "control.training", [Loss("cross_entropy")])
