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


def _tokenizer_files(recipe: "Recipe") -> dict[str, str]:
    from potstill.fingerprints import tokenizer_files

    return tokenizer_files(recipe)


def _evaluation_files(recipe: "Recipe") -> dict[str, str]:
    from potstill.fingerprints import evaluation_files

    return evaluation_files(recipe)


def _text_of(recipe: "Recipe") -> Any:
    """What of the corpus decides which text is trained on; not how it becomes samples."""
    return recipe.corpus.model_dump(mode="json", by_alias=True, include={"sources", "cleaning", "held_out"})


def _teacher_files(recipe: "Recipe") -> dict[str, str]:
    from potstill.fingerprints import teacher_files

    return teacher_files(recipe)


def _weights(recipe: "Recipe") -> dict[str, float]:
    return {name: teacher.weight for name, teacher in recipe.all_teachers.items()}


def _of_seeds(stage: str) -> "Callable[[Recipe], list[Step]]":
    return lambda recipe: [Step(stage, seed) for seed in recipe.seeds]


def _samples(recipe: "Recipe") -> dict[str, bool]:
    """What of the corpus is done while training: the corpus that lies on the disk is the same."""
    return {"corpus.random_offset": recipe.corpus.random_offset}


def _of_teacher(recipe: "Recipe", teacher: Any) -> dict[str, Any]:
    """What a teacher's training depends on; its weight among others is the student's business."""
    return _all_but(teacher, "weight") | _samples(recipe)


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
    needs: Callable[["Recipe"], tuple[str, ...]] = field(default=lambda recipe: ())
    """The stages whose outputs it reads."""
    files: Callable[["Recipe"], dict[str, str]] = field(default=lambda recipe: {})
    """The fingerprints of the files that it reads outside of the run folder."""
    all_ranks: bool = False
    """Where there are several ranks, all of them do it together; otherwise the first one does it alone."""
    parts: Callable[["Recipe"], list[Step]] | None = None
    """The steps of a stage that runs more than once. A step with a name reads no other name's part of the section."""
    reads_manifests: bool = False
    """It reads what the stages before it cost, and not only what they made."""
    wanted: Callable[["Recipe"], bool] = field(default=lambda recipe: True)
    """Whether a recipe asks for it at all."""


def _student_needs(recipe: "Recipe") -> tuple[str, ...]:
    # A student from nothing can be looked at before its teachers have been trained.
    of_a_pretrained_one = getattr(recipe.student, "teacher", None) in recipe.pretrain
    return ("teachers", "tokenizer", "pretrain") if of_a_pretrained_one else ("teachers", "tokenizer")


STAGES: tuple[Stage, ...] = (
    Stage(
        "teachers",
        "Make the teachers ready: find, convert, pin.",
        lambda r: {"teachers": {name: _all_but(teacher, "weight") for name, teacher in r.teachers.items()}},
        files=_teacher_files,
        wanted=lambda r: bool(r.teachers),
    ),
    Stage(
        "tokenizer",
        "Train the tokenizer, or take the one that is given.",
        lambda r: {"tokenizer": r.tokenizer, "corpus": _text_of(r) if hasattr(r.tokenizer, "vocab_size") else None},
        lambda r: ("teachers",),
        files=_tokenizer_files,
        wanted=lambda r: r.tokenizer is not None,
    ),
    Stage(
        "corpus",
        "Read, clean, split, tokenize and lay out the text.",
        lambda r: {"corpus": r.corpus},
        lambda r: ("teachers", "tokenizer"),
        files=_source_files,
    ),
    Stage(
        "pretrain",
        "Train the teachers that do not exist yet.",
        lambda r: {"pretrain": {name: _of_teacher(r, teacher) for name, teacher in r.pretrain.items()}},
        lambda r: ("tokenizer", "corpus"),
        all_ranks=True,
        parts=lambda r: [Step("pretrain", name=name) for name in r.pretrain],
    ),
    Stage(
        "student",
        "Build the student as it is before training.",
        lambda r: {"student": r.student, "corpus.sequence_length": r.corpus.sequence_length},
        _student_needs,
    ),
    Stage(
        "capture",
        "Run the teachers once and keep their targets.",
        lambda r: {
            "capture": _all_but(r.capture, "batch_size"),
            "distil.losses.temperature": r.distil.temperatures,
            **_foreign_start(r),
        },
        lambda r: ("teachers", "tokenizer", "corpus", "pretrain"),
        all_ranks=True,
        wanted=lambda r: r.capture is not None,
    ),
    Stage(
        "distil",
        "Train the student from its teachers.",
        lambda r: {"distil": r.distil, "teachers.weight": _weights(r), **_samples(r)},
        lambda r: ("teachers", "tokenizer", "corpus", "pretrain", "student", "capture"),
        all_ranks=True,
        parts=_of_seeds("distil"),
    ),
    Stage(
        "control",
        "Train the control: same start, same tokens, no teacher.",
        lambda r: {"control": r.control, "distil": _all_but(r.distil, "losses", "mix", "reduction"), **_samples(r)},
        lambda r: ("corpus", "student"),
        all_ranks=True,
        parts=_of_seeds("control"),
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
        lambda r: ("teachers", "tokenizer", "corpus", "pretrain", "student", "distil", "control"),
        files=_evaluation_files,
    ),
    Stage(
        "report",
        "Write the page that shows it all.",
        lambda r: {"about": r.about, "seeds": r.seeds},
        lambda r: tuple(stage.name for stage in STAGES if stage.name != "report"),
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
    return [Step(stage.name)] if stage.parts is None else stage.parts(recipe)


def read_by(recipe: "Recipe", step: Step) -> dict[str, Any]:
    """What a step takes from the recipe; a step with a name, only what is said under it."""
    reads = BY_NAME[step.stage].reads(recipe)
    return reads if step.name is None else {f"{step.stage}.{step.name}": reads[step.stage][step.name]}


def asked_for(recipe: "Recipe", name: str) -> Stage:
    """The stage of that name, which the recipe must ask for.

    Raises:
        UserError: there is no such stage, or the recipe leaves it out.
    """
    stage = stage_named(name)
    if not steps_of(recipe, stage):
        raise UserError(f"the recipe leaves `{name}` out, so there is nothing to do; add a section `{name}: {{}}`")
    return stage


def all_steps(recipe: "Recipe", until: str | None = None) -> list[Step]:
    """Every step in order; with `until`, only that stage and what it needs.

    Raises:
        UserError: `until` is no stage, or the recipe leaves it out.
    """
    names = set(BY_NAME) if until is None else {until, *_ancestors(recipe, asked_for(recipe, until))}
    return [step for stage in STAGES if stage.name in names for step in steps_of(recipe, stage)]


def _ancestors(recipe: "Recipe", stage: Stage) -> set[str]:
    needs = stage.needs(recipe)
    return set(needs).union(*(_ancestors(recipe, BY_NAME[name]) for name in needs))
