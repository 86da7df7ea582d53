"""control: what the same training is worth without a teacher.

The student's start, the student's samples in the student's order, cross-entropy only. Makes `control/seed-N/`.
"""

from transformers import AutoModelForCausalLM

from potstill.fitting import fit
from potstill.losses.terms import Loss
from potstill.pipeline import Made, Work


def run(work: Work) -> Made:
    """Train the control of one seed."""
    recipe = work.recipe
    assert recipe.control is not None
    assert work.step.seed is not None
    training = recipe.distil.training | recipe.control.training
    start = AutoModelForCausalLM.from_pretrained(work.run.path("student") / "start")
    losses = [Loss("cross_entropy")]
    return fit(work, start, training, "control.training", losses, work.step.seed, recipe.distil.keep)
