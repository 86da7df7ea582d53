"""Pipeline: the stages, what each of them depends on, and which steps a recipe asks for.

The one table of stages: verbs are made from it, and the runner follows it. It imports nothing heavy, because
`potstill --help` reads it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill import reads
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


def _teacher_files(recipe: "Recipe") -> dict[str, str]:
    from potstill.fingerprints import teacher_files

    return teacher_files(recipe)


def _decisions(run: Run) -> dict[str, str]:
    from potstill.fingerprints import decisions

    return decisions(run)


def _of_seeds(stage: str) -> "Callable[[Recipe], list[Step]]":
    return lambda recipe: [Step(stage, seed) for seed in recipe.seeds]


def _of_students(stage: str) -> "Callable[[Recipe], list[Step]]":
    return lambda recipe: [Step(stage, seed, name) for name in recipe.variants for seed in recipe.seeds]


def _of_lessons(recipe: "Recipe", stage: str) -> list[Step]:
    return [Step(stage, name=name) for name in recipe.lessons]


@dataclass(frozen=True)
class Stage:
    """A stage: its name is its verb, its module in `stages/`, and its folder in the run."""

    name: str
    about: str
    reads: Callable[["Recipe", Step], dict[str, Any]]
    """What a step of it takes from the recipe, by dotted key; another value, and the step runs again."""
    needs: Callable[["Recipe"], tuple[str, ...]] = field(default=lambda recipe: ())
    """The stages whose outputs it reads."""
    takes: Callable[["Recipe", Step, Step], bool] = field(default=lambda recipe, step, needed: True)
    """Whether a step of it reads what this step of such a stage makes."""
    files: Callable[["Recipe"], dict[str, str]] = field(default=lambda recipe: {})
    """The fingerprints of the files that it reads outside of the run folder."""
    by_hand: Callable[[Run], dict[str, str]] = field(default=lambda run: {})
    """The fingerprints of the files in the run folder that no stage makes."""
    all_ranks: bool = False
    """Where there are several ranks, all of them do it together; otherwise the first one does it alone."""
    parts: Callable[["Recipe"], list[Step]] | None = None
    """The steps of a stage that runs more than once."""
    reads_manifests: bool = False
    """It reads what the stages before it cost, and not only what they made."""
    wanted: Callable[["Recipe"], bool] = field(default=lambda recipe: True)
    """Whether a recipe asks for it at all."""


def _student_needs(recipe: "Recipe") -> tuple[str, ...]:
    # A student from nothing can be looked at before its teachers have been trained.
    of_a_pretrained_one = getattr(recipe.student, "teacher", None) in recipe.pretrain
    return ("teachers", "tokenizer", "pretrain") if of_a_pretrained_one else ("teachers", "tokenizer")


def student_name(variant: str | None) -> str:
    """What a student is called in a comparison."""
    return "student" if variant is None else f"student {variant}"


ASKED = "held-out"
"""The step of `prompts` that makes the held-out questions ready to be asked."""


def _of_its_lesson(recipe: "Recipe", step: Step, needed: Step) -> bool:
    """Of prompts and captures, a student takes those of its own lesson, a control those of the first student, and a
    search those of the student that it is tried on; a student with losses of its own takes nothing of a search."""
    if needed.stage == "search":
        return recipe.is_searched(step.name)
    if needed.stage not in ("prompts", "capture") or needed.name is None:
        return True
    if step.stage == "search":
        variant = recipe.tried_on
    else:
        variant = step.name if step.stage == "distil" else next(iter(recipe.variants))
    return needed.name == recipe.lesson_of(variant).name


def answering(recipe: "Recipe") -> list[Step]:
    """A step for each model that answers: the teachers, the start, and each seed of what was trained."""
    found: list[tuple[str, int | None]] = [
        (f"teacher-{name}", None) for name in recipe.all_teachers if recipe.answers.teachers
    ]
    found.append(("start", None))
    students = [student_name(name).replace(" ", "-") for name in recipe.variants]
    trained = [*students, *(["control"] if recipe.control is not None else [])]
    found += [(name, seed) for name in trained for seed in recipe.seeds]
    return [Step("answers", seed, name) for name, seed in found]


def _of_its_model(recipe: "Recipe", step: Step, needed: Step) -> bool:
    """A model that answers is asked what all are asked, and needs nothing of what another one was made from."""
    kind, _, name = (step.name or "").partition("-")
    wanted = {
        "prompts": needed.name == ASKED,
        "pretrain": kind == "teacher" and needed.name == name,
        "student": kind != "teacher",
        "distil": kind == "student" and needed.name == (name or None) and needed.seed == step.seed,
        "control": kind == "control" and needed.seed == step.seed,
    }
    return wanted.get(needed.stage, True)


STAGES: tuple[Stage, ...] = (
    Stage(
        "teachers",
        "Make the teachers ready: find, convert, pin.",
        lambda r, s: {"teachers": {name: reads.all_but(teacher, "weight") for name, teacher in r.teachers.items()}},
        files=_teacher_files,
        wanted=lambda r: bool(r.teachers),
    ),
    Stage(
        "tokenizer",
        "Train the tokenizer, or take the one that is given.",
        lambda r, s: {
            "tokenizer": r.tokenizer,
            "corpus": reads.text_of(r) if hasattr(r.tokenizer, "vocab_size") else None,
        },
        lambda r: ("teachers",),
        files=_tokenizer_files,
        wanted=lambda r: r.tokenizer is not None,
    ),
    Stage(
        "corpus",
        "Read, clean and split the text or the questions, and lay the text out.",
        # How long questions and answers may be is nothing to them before they are made prompts.
        lambda r, s: {"corpus": reads.all_but(r.corpus, "sequence_length", "teacher_length") if r.asks else r.corpus},
        lambda r: ("teachers", "tokenizer"),
        files=_source_files,
    ),
    Stage(
        "pretrain",
        "Train the teachers that do not exist yet.",
        lambda r, s: reads.of_teacher(r, str(s.name)),
        lambda r: ("tokenizer", "corpus"),
        all_ranks=True,
        parts=lambda r: [Step("pretrain", name=name) for name in r.pretrain],
    ),
    Stage(
        "student",
        "Build the student as it is before training.",
        lambda r, s: {"student": r.student, "corpus.sequence_length": r.corpus.sequence_length},
        _student_needs,
    ),
    Stage(
        "generate",
        "Let a teacher write the answers that are learned.",
        lambda r, s: {
            "generate": r.generate,
            "generate.prompt": r.generate and r.strategies[r.generate.prompt].teacher,
        },
        lambda r: ("teachers", "tokenizer", "corpus", "pretrain"),
        takes=lambda r, s, needed: needed.stage != "pretrain" or needed.name == (r.generate and r.generate.by),
        wanted=lambda r: r.generate is not None,
    ),
    Stage(
        "prompts",
        "Put the questions to teacher and student, each in its own words.",
        lambda r, s: reads.lengths(r) | (reads.asked_with(r) if s.name == ASKED else {"prompts": reads.strategies(r)}),
        lambda r: ("teachers", "tokenizer", "corpus", "generate"),
        takes=lambda r, s, needed: needed.stage != "generate" or s.name != ASKED,
        parts=lambda r: [*_of_lessons(r, "prompts"), Step("prompts", name=ASKED)],
        wanted=lambda r: r.asks,
    ),
    Stage(
        "capture",
        "Run the teachers once and keep their targets.",
        lambda r, s: {
            "capture": reads.all_but(r.capture, "batch_size"),
            "distil.losses.temperature": r.temperatures_of(s.name),
            **reads.foreign_start(r),
        },
        lambda r: ("teachers", "tokenizer", "corpus", "pretrain", "prompts"),
        takes=lambda r, s, needed: needed.stage != "prompts" or needed.name == s.name,
        all_ranks=True,
        parts=lambda r: _of_lessons(r, "capture") if r.asks else [Step("capture")],
        wanted=lambda r: r.capture is not None,
    ),
    Stage(
        "search",
        "Find the setting of the losses that is best on the validation split.",
        lambda r, s: reads.searched(r),
        lambda r: ("teachers", "tokenizer", "corpus", "pretrain", "student", "prompts", "capture"),
        takes=_of_its_lesson,
        all_ranks=True,
        wanted=lambda r: r.search is not None,
    ),
    Stage(
        "distil",
        "Train the student from its teachers.",
        lambda r, s: reads.distilled(r, s.name),
        lambda r: ("teachers", "tokenizer", "corpus", "pretrain", "student", "prompts", "capture", "search"),
        takes=_of_its_lesson,
        all_ranks=True,
        parts=_of_students("distil"),
    ),
    Stage(
        "control",
        "Train the control: same start, same tokens, no teacher.",
        lambda r, s: {
            "control": r.control,
            "distil": reads.all_but(r.distil, "losses", "mix", "reduction"),
            **reads.samples(r),
            **reads.adapted(r),
        },
        lambda r: ("corpus", "student", "prompts"),
        takes=_of_its_lesson,
        all_ranks=True,
        parts=_of_seeds("control"),
        wanted=lambda r: r.control is not None,
    ),
    Stage(
        "answers",
        "Let every model answer the held-out questions.",
        lambda r, s: reads.asked_with(r) | reads.quantized(r),
        lambda r: ("teachers", "tokenizer", "corpus", "pretrain", "student", "prompts", "distil", "control"),
        takes=_of_its_model,
        parts=answering,
        wanted=lambda r: r.asks,
    ),
    Stage(
        "evaluate",
        "Compare teacher, student before, student after and control.",
        lambda r, s: {
            "evaluate": reads.all_but(r.evaluate, "batch_size"),
            "seeds": r.seeds,
            "corpus.sequence_length": r.corpus.sequence_length,
            "teachers.weight": reads.weights(r),
            "distil.mix": r.distil.mix,
            **reads.quantized(r),
            "experiments": list(r.variants),
        },
        lambda r: ("teachers", "tokenizer", "corpus", "pretrain", "student", "distil", "control", "answers"),
        files=_evaluation_files,
        by_hand=_decisions,
    ),
    Stage(
        "report",
        "Write the page that shows it all.",
        lambda r, s: {"about": r.about, "seeds": r.seeds},
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


def needed_by(recipe: "Recipe", step: Step) -> list[Step]:
    """The steps whose outputs a step reads."""
    stage = BY_NAME[step.stage]
    others = [needed for name in stage.needs(recipe) for needed in steps_of(recipe, BY_NAME[name])]
    return [needed for needed in others if stage.takes(recipe, step, needed)]


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
