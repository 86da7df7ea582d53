"""Pipeline: the stages, what each of them depends on, and which steps a recipe asks for.

The one table of stages: verbs are made from it, and the runner follows it. It imports nothing heavy, because
`potstill --help` reads it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.run import Run, Step
from potstill.words import UserError

if TYPE_CHECKING:
    from potstill.recipe import Recipe


def _source_files(recipe: "Recipe") -> dict[str, str]:
    from potstill.fingerprints import source_files

    return source_files(recipe)


def _teacher_files(recipe: "Recipe") -> dict[str, str]:
    from potstill.fingerprints import teacher_files

    return teacher_files(recipe)


def _weights(recipe: "Recipe") -> dict[str, float]:
    return {name: teacher.weight for name, teacher in recipe.teachers.items()}


def _foreign_start(recipe: "Recipe") -> dict[str, str]:
    """A student that is not made of its teacher is compared with it on tokens, and not on all that its head has."""
    return {"student.start": recipe.student.start} if recipe.student.start == "checkpoint" else {}


def _all_but(section: Any, *left_out: str) -> Any:
    """A section without the keys that change how it is computed and not what comes out."""
    return section and section.model_dump(mode="json", by_alias=True, exclude=set(left_out))


@dataclass(frozen=True)
class Stage:
    """A stage: its name is its verb, its module in `stages/`, and its folder in the run."""

    name: str
    about: str
    reads: Callable[["Recipe"], dict[str, Any]]
    """What it takes from the recipe, by dotted key; another value, and the stage runs again."""
    needs: tuple[str, ...] = ()
    """The stages whose outputs it reads."""
    files: Callable[["Recipe"], dict[str, str]] = field(default=lambda recipe: {})
    """The fingerprints of the files that it reads outside of the run folder."""
    all_ranks: bool = False
    """Where there are several ranks, all of them do it together; otherwise the first one does it alone."""
    each_seed: bool = False
    """It runs once for each seed."""
    reads_manifests: bool = False
    """It reads what the stages before it cost, and not only what they made."""
    wanted: Callable[["Recipe"], bool] = field(default=lambda recipe: True)
    """Whether a recipe asks for it at all."""


STAGES = (
    Stage(
        "teachers",
        "Make the teachers ready: find, convert, pin.",
        lambda r: {"teachers": {name: _all_but(teacher, "weight") for name, teacher in r.teachers.items()}},
        files=_teacher_files,
    ),
    Stage(
        "corpus",
        "Read, split, tokenize and lay out the text.",
        lambda r: {"corpus": r.corpus},
        ("teachers",),
        files=_source_files,
    ),
    Stage(
        "student",
        "Build the student as it is before training.",
        lambda r: {"student": r.student, "corpus.sequence_length": r.corpus.sequence_length},
        ("teachers",),
    ),
    Stage(
        "capture",
        "Run the teachers once and keep their targets.",
        lambda r: {
            "capture": _all_but(r.capture, "batch_size"),
            "distil.losses.temperature": r.distil.temperatures,
            **_foreign_start(r),
        },
        ("teachers", "corpus"),
        all_ranks=True,
        wanted=lambda r: r.capture is not None,
    ),
    Stage(
        "distil",
        "Train the student from its teachers.",
        lambda r: {"distil": r.distil, "teachers.weight": _weights(r)},
        ("teachers", "corpus", "student", "capture"),
        all_ranks=True,
        each_seed=True,
    ),
    Stage(
        "control",
        "Train the control: same start, same tokens, no teacher.",
        lambda r: {"control": r.control, "distil.training": _all_but(r.distil)["training"]},
        ("corpus", "student"),
        all_ranks=True,
        each_seed=True,
        wanted=lambda r: r.control is not None,
    ),
    Stage(
        "evaluate",
        "Compare teacher, student before, student after and control.",
        lambda r: {
            "evaluate": _all_but(r.evaluate, "batch_size"),
            "seeds": r.seeds,
            "corpus.sequence_length": r.corpus.sequence_length,
            "teachers.weight": _weights(r),
            "distil.mix": r.distil.mix,
        },
        ("teachers", "corpus", "student", "distil", "control"),
    ),
    Stage(
        "report",
        "Write the page that shows it all.",
        lambda r: {"about": r.about, "seeds": r.seeds},
        ("teachers", "corpus", "student", "capture", "distil", "control", "evaluate"),
        reads_manifests=True,
    ),
)
BY_NAME = {stage.name: stage for stage in STAGES}


@dataclass(frozen=True)
class Work:
    """What a stage is given: the recipe, the run, and the step to do."""

    recipe: "Recipe"
    run: Run
    step: Step

    @property
    def folder(self) -> Path:
        """Where this step keeps what it makes."""
        return self.run.path(self.step)


@dataclass(frozen=True)
class Made:
    """What a stage gives back: its output files or folders, and a few figures for the manifest."""

    outputs: Sequence[Path]
    summary: dict[str, Any]


def stage_named(name: str) -> Stage:
    """The stage of that name.

    Raises:
        UserError: there is none.
    """
    if name not in BY_NAME:
        raise UserError(f"there is no stage {name!r}; the stages are {', '.join(BY_NAME)}")
    return BY_NAME[name]


def steps_of(recipe: "Recipe", stage: Stage) -> list[Step]:
    """The steps of a stage in this recipe; none where the recipe leaves the stage out."""
    if not stage.wanted(recipe):
        return []
    return [Step(stage.name, seed) for seed in recipe.seeds] if stage.each_seed else [Step(stage.name)]


def asked_for(recipe: "Recipe", name: str) -> Stage:
    """The stage of that name, which the recipe must ask for.

    Raises:
        UserError: there is no such stage, or the recipe leaves it out.
    """
    stage = stage_named(name)
    if not stage.wanted(recipe):
        raise UserError(f"the recipe leaves `{name}` out, so there is nothing to do; add a section `{name}: {{}}`")
    return stage


def all_steps(recipe: "Recipe", until: str | None = None) -> list[Step]:
    """Every step in order; with `until`, only that stage and what it needs.

    Raises:
        UserError: `until` is no stage, or the recipe leaves it out.
    """
    names = set(BY_NAME) if until is None else {until, *_ancestors(asked_for(recipe, until))}
    return [step for stage in STAGES if stage.name in names for step in steps_of(recipe, stage)]


def _ancestors(stage: Stage) -> set[str]:
    return set(stage.needs).union(*(_ancestors(BY_NAME[name]) for name in stage.needs))
