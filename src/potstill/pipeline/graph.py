"""Pipeline: the stages, what each of them depends on, and which steps a recipe asks for.

The one table of stages: verbs are made from it, and the runner follows it. It imports nothing heavy, because
`potstill --help` reads it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from potstill.errors import UserError
from potstill.pipeline import recipe_inputs, steps
from potstill.pipeline.run_folder import Run
from potstill.recipe.step import Step

if TYPE_CHECKING:
    from potstill.recipe import Recipe


def _source_files(recipe: "Recipe") -> dict[str, str]:
    from potstill.pipeline.file_fingerprints import source_files

    return source_files(recipe)


def _tokenizer_files(recipe: "Recipe") -> dict[str, str]:
    from potstill.pipeline.file_fingerprints import tokenizer_files

    return tokenizer_files(recipe)


def _evaluation_files(recipe: "Recipe") -> dict[str, str]:
    from potstill.pipeline.file_fingerprints import evaluation_files

    return evaluation_files(recipe)


def _teacher_files(recipe: "Recipe") -> dict[str, str]:
    from potstill.pipeline.file_fingerprints import teacher_files

    return teacher_files(recipe)


def _decisions(run: Run) -> dict[str, str]:
    from potstill.pipeline.file_fingerprints import decisions

    return decisions(run)


def _curves(run: Run) -> dict[str, str]:
    from potstill.pipeline.file_fingerprints import curves

    return curves(run)


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
    # It is measured on the text; one from nothing can be looked at before its teachers have been trained.
    of_a_pretrained_one = getattr(recipe.student, "teacher", None) in recipe.pretrain
    return ("teachers", "tokenizer", "corpus", *(["pretrain"] if of_a_pretrained_one else []))


STAGES: tuple[Stage, ...] = (
    Stage(
        "teachers",
        "Find, convert and pin the teachers.",
        lambda r, s: {
            "teachers": {name: recipe_inputs.all_but(teacher, "weight") for name, teacher in r.teachers.items()}
        },
        files=_teacher_files,
        wanted=lambda r: bool(r.teachers),
    ),
    Stage(
        "tokenizer",
        "Train the tokenizer, or read the given one.",
        lambda r, s: {
            "tokenizer": r.tokenizer,
            "corpus": recipe_inputs.text_of(r) if hasattr(r.tokenizer, "min_frequency") else None,
        },
        lambda r: ("teachers",),
        files=_tokenizer_files,
        wanted=lambda r: r.tokenizer is not None,
    ),
    Stage(
        "corpus",
        "Read, clean and split the text or the questions, and make samples of the text.",
        # How long questions and answers may be is nothing to them before they are made prompts.
        lambda r, s: {
            "corpus": recipe_inputs.all_but(r.corpus, "sequence_length", "teacher_length") if r.asks else r.corpus
        },
        lambda r: ("teachers", "tokenizer"),
        files=_source_files,
    ),
    Stage(
        "pretrain",
        "Train the teachers that do not exist yet.",
        lambda r, s: recipe_inputs.of_teacher(r, str(s.name)),
        lambda r: ("tokenizer", "corpus"),
        all_ranks=True,
        parts=lambda r: [Step("pretrain", name=name) for name in r.pretrain],
    ),
    Stage(
        "student",
        "Build the start: the student before training.",
        lambda r, s: recipe_inputs.started(r),
        _student_needs,
    ),
    Stage(
        "generate",
        "Let a teacher write the training answers.",
        lambda r, s: {
            "generate": r.generate,
            "generate.strategy": r.generate and r.all_strategies[r.generate.strategy].teacher,
        },
        lambda r: ("teachers", "tokenizer", "corpus", "pretrain"),
        takes=lambda r, s, needed: needed.stage != "pretrain" or needed.name == (r.generate and r.generate.by),
        wanted=lambda r: r.generate is not None,
    ),
    Stage(
        "strategies",
        "Put each question into the prompts of teacher and student.",
        lambda r, s: (
            recipe_inputs.lengths(r)
            | (recipe_inputs.asked_with(r) if s == steps.asked_step(r) else {"strategies": recipe_inputs.strategies(r)})
        ),
        lambda r: ("teachers", "tokenizer", "corpus", "generate"),
        takes=lambda r, s, needed: needed.stage != "generate" or s != steps.asked_step(r),
        parts=lambda r: [*steps.of_sample_sets(r, "strategies"), steps.asked_step(r)],
        wanted=lambda r: r.asks,
    ),
    Stage(
        "capture",
        "Run the teachers once and keep their targets.",
        lambda r, s: {
            "capture": recipe_inputs.all_but(r.capture, "batch_size"),
            "distil.losses.temperature": r.temperatures_of(s.name),
            **recipe_inputs.foreign_start(r),
        },
        lambda r: ("teachers", "tokenizer", "corpus", "pretrain", "strategies"),
        takes=lambda r, s, needed: needed.stage != "strategies" or needed.name == s.name,
        all_ranks=True,
        parts=lambda r: steps.of_sample_sets(r, "capture") if r.asks else [Step("capture")],
        wanted=lambda r: r.capture is not None,
    ),
    Stage(
        "search",
        "Find the best setting of the losses on the validation split.",
        lambda r, s: recipe_inputs.searched(r),
        lambda r: ("teachers", "tokenizer", "corpus", "pretrain", "student", "strategies", "capture"),
        takes=steps.of_its_sample_set,
        all_ranks=True,
        wanted=lambda r: r.search is not None,
    ),
    Stage(
        "distil",
        "Train the student from its teachers.",
        lambda r, s: recipe_inputs.distilled(r, s.name),
        lambda r: ("teachers", "tokenizer", "corpus", "pretrain", "student", "strategies", "capture", "search"),
        takes=steps.of_its_sample_set,
        all_ranks=True,
        parts=steps.of_students("distil"),
    ),
    Stage(
        "control",
        "Train the control: same start, same tokens, no teacher.",
        lambda r, s: recipe_inputs.controlled(r),
        lambda r: ("corpus", "student", "strategies"),
        takes=steps.of_its_sample_set,
        all_ranks=True,
        parts=steps.of_seeds("control"),
        wanted=lambda r: r.control is not None,
    ),
    Stage(
        "select",
        "Select the best snapshots of student and control.",
        lambda r, s: recipe_inputs.selected(r),
        lambda r: ("teachers", "tokenizer", "corpus", "student", "strategies", "distil", "control"),
        takes=steps.of_its_training,
        files=lambda r: _evaluation_files(r) if recipe_inputs.chosen_on(r) else {},
        parts=steps.selecting,
        wanted=lambda r: r.select is not None,
    ),
    Stage(
        "answers",
        "Let every model answer the held-out questions.",
        lambda r, s: recipe_inputs.asked_with(r) | recipe_inputs.quantized(r),
        lambda r: ("teachers", "tokenizer", "corpus", "pretrain", "student", "strategies", *steps.trained_stages(r)),
        takes=steps.of_its_candidate,
        parts=steps.answering,
        wanted=lambda r: r.asks,
    ),
    Stage(
        "evaluate",
        "Compare teacher, start, student and control.",
        lambda r, s: {
            "evaluate": recipe_inputs.all_but(r.evaluate, "batch_size"),
            "seeds": r.seeds,
            "corpus.sequence_length": r.corpus.sequence_length,
            "teachers.weight": recipe_inputs.weights(r),
            "distil.mix": r.distil.mix,
            **recipe_inputs.quantized(r),
            "experiments": list(r.variants),
            **({"select.by": recipe_inputs.chosen_on(r)} if recipe_inputs.chosen_on(r) else {}),
        },
        lambda r: ("teachers", "tokenizer", "corpus", "pretrain", "student", *steps.trained_stages(r), "answers"),
        files=_evaluation_files,
        by_hand=_decisions,
    ),
    Stage(
        "report",
        "Write the report: one page with all results.",
        lambda r, s: {"about": r.about, "seeds": r.seeds},
        lambda r: tuple(stage.name for stage in STAGES if stage.name != "report"),
        by_hand=_curves,
        reads_manifests=True,
    ),
)
BY_NAME = {stage.name: stage for stage in STAGES}


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
