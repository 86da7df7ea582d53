"""The models under comparison: teachers, the student before and after, the control; and what a measurement says."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from potstill.metrics.bootstrap import Paired, Result
from potstill.pipeline import artifacts
from potstill.pipeline.run_folder import Step
from potstill.pipeline.steps import student_name
from potstill.pipeline.work import Work


@dataclass(frozen=True)
class Compared:
    """One model under comparison, of one seed."""

    file: str
    """How the files with its scores are named."""
    load: Callable[[], PreTrainedModel]
    """Reads it, for reading only, onto this machine's device."""
    tokenizer: Callable[[], Any] | None = None
    """Reads its own tokenizer; None: it has the run's."""


Models = Mapping[str, Sequence[Compared]]
"""Each model by the name that it has in the comparison; one a seed where it was trained."""


@dataclass(frozen=True)
class Measured:
    """What one measurement found."""

    rows: Sequence[Result] = ()
    """Every model's metrics."""
    pairs: Sequence[Paired] = ()
    """The students' differences from other models, on the same items."""
    outputs: Sequence[Path] = ()
    """Files and folders to be kept, in the step's folder."""
    summary: dict[str, Any] = field(default_factory=dict)
    """Figures for the manifest."""
    more: dict[str, Any] = field(default_factory=dict)
    """What else goes into `comparison.json`."""


def compared_models(work: Work) -> Models:
    """Every model of a run that can be measured."""
    recipe, teachers = work.recipe, artifacts.teachers(work)
    names = ["teacher"] if len(teachers) == 1 else [f"teacher {teacher.name}" for teacher in teachers]
    found = {
        name: [Compared(name.replace(" ", "-"), teacher.model, teacher.tokenizer)]
        for name, teacher in zip(names, teachers, strict=True)
    }
    found["start"] = [Compared("start-0", partial(artifacts.start, work))]
    steps = {student_name(name): [Step("distil", seed, name) for seed in recipe.seeds] for name in recipe.variants}
    if recipe.control is not None:
        steps["control"] = [Step("control", seed) for seed in recipe.seeds]
    for name, each in steps.items():
        found[name] = [Compared(f"{name}-{n}", partial(artifacts.trained, work, step)) for n, step in enumerate(each)]
    return found


def compared_pairs(work: Work, models: Iterable[str]) -> list[tuple[str, str]]:
    """Each student, with each model that it is compared with: its start, its control, teachers that were trained on no
    more than it, and models that are not the run's."""
    names = list(models)
    wanted = ("start", "control", "teacher") if work.recipe.pretrain else ("start", "control")
    others = [name for kind in wanted for name in names if _kind(name) == kind]
    others += [name for name in names if name in work.recipe.evaluate.models]
    return [(student, other) for student in names if _kind(student) == "student" for other in others]


def _kind(model: str) -> str:
    return model.partition(" ")[0]
