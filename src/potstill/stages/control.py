"""control: what the same training is worth without a teacher.

The student's start, the student's samples in the student's order, cross-entropy only. Makes `control/seed-N/`.
"""

from functools import partial

from potstill.losses.loss import Loss
from potstill.pipeline import training_data
from potstill.pipeline.work import Made, Work
from potstill.students.load_and_save import finish_student, load_to_train, unmerged
from potstill.training.fit import fit


def run(work: Work) -> Made:
    """Train the control of one seed."""
    recipe = work.recipe
    assert recipe.control is not None
    assert work.step.seed is not None
    training = recipe.distil.training | recipe.control.training
    folder, student = work.run.path("student") / "start", recipe.student
    start, done = load_to_train(folder, student, work.step.seed), partial(finish_student, start=folder, student=student)
    learned = training_data.of_students(work, next(iter(recipe.variants)), work.step.seed)
    how = (training, "control.training", [Loss("cross_entropy")], work.step.seed, recipe.distil.keep)
    tidy = partial(finish_student, start=folder, student=unmerged(student))
    return fit(work, start, learned, *how, finish=done, snapshots=recipe.distil.snapshots, tidy=tidy)
