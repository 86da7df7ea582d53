"""Graph: the one table of stages, the inputs of each stage, and the steps that a recipe asks for.

The command line makes its verbs from this table, and the runner follows it. The module imports nothing heavy, because
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


def _start_files(recipe: "Recipe") -> dict[str, str]:
    from potstill.pipeline.file_fingerprints import start_files

    return start_files(recipe)


def _captured_files(recipe: "Recipe") -> dict[str, str]:
    from potstill.pipeline.file_fingerprints import captured_files

    return captured_files(recipe)


def _training_files(recipe: "Recipe") -> dict[str, str]:
    from potstill.pipeline.file_fingerprints import training_files

    return training_files(recipe)


def _review_files(run: Run) -> dict[str, str]:
    from potstill.pipeline.file_fingerprints import review_files

    return review_files(run)


def _snapshot_curve_files(run: Run) -> dict[str, str]:
    from potstill.pipeline.file_fingerprints import snapshot_curve_files

    return snapshot_curve_files(run)


@dataclass(frozen=True)
class Stage:
    """A stage: its name is its verb, its module in `stages/`, and its folder in the run."""

    name: str
    about: str
    recipe_inputs: Callable[["Recipe", Step], dict[str, Any]]
    """The recipe's values that a step depends on, by dotted key. A changed value makes the step run again."""
    needs: Callable[["Recipe"], tuple[str, ...]] = field(default=lambda recipe: ())
    """The stages whose outputs this stage reads."""
    needs_step: Callable[["Recipe", Step, Step], bool] = field(default=lambda recipe, step, needed: True)
    """Whether a step of this stage (second argument) reads the outputs of a needed stage's step (third argument)."""
    files: Callable[["Recipe"], dict[str, str]] = field(default=lambda recipe: {})
    """The fingerprints of the files that this stage reads outside the run folder."""
    user_files: Callable[[Run], dict[str, str]] = field(default=lambda run: {})
    """The fingerprints of the files in the run folder that users make, and no stage."""
    all_ranks: bool = False
    """Whether all ranks run this stage together. Otherwise the first rank runs it alone."""
    steps: Callable[["Recipe"], list[Step]] | None = None
    """The steps of this stage in a recipe. None: one step."""
    reads_manifests: bool = False
    """Whether this stage also reads the manifests of earlier steps, such as their costs."""
    is_asked_for: Callable[["Recipe"], bool] = field(default=lambda recipe: True)
    """Whether a recipe asks for this stage."""


def _student_needs(recipe: "Recipe") -> tuple[str, ...]:
    # The start is measured on the corpus. A student from scratch does not wait for its teachers' training.
    of_a_pretrained_one = getattr(recipe.student, "teacher", None) in recipe.pretrain
    return ("teachers", "tokenizer", "corpus", *(["pretrain"] if of_a_pretrained_one else []))


STAGES: tuple[Stage, ...] = (
    Stage(
        "teachers",
        "Find, convert and pin the teachers.",
        lambda r, s: {
            "teachers": {name: recipe_inputs.teacher_model(teacher) for name, teacher in r.teachers.items()},
            **recipe_inputs.alignment(r),
        },
        files=_teacher_files,
        is_asked_for=lambda r: bool(r.teachers),
    ),
    Stage(
        "tokenizer",
        "Train the tokenizer, or read the given one.",
        lambda r, s: {
            "tokenizer": r.tokenizer,
            "corpus": recipe_inputs.training_text(r) if hasattr(r.tokenizer, "min_frequency") else None,
            **recipe_inputs.alignment(r),
        },
        lambda r: ("teachers",),
        files=_tokenizer_files,
        is_asked_for=lambda r: r.tokenizer is not None,
    ),
    Stage(
        "corpus",
        "Read, clean and split the text or the questions, and make samples of the text.",
        # Length limits of questions apply to prompts, which a later stage makes.
        lambda r, s: {
            "corpus": recipe_inputs.section_without(r.corpus, "sequence_length", "teacher_length")
            if r.asks
            else r.corpus,
            **recipe_inputs.references(r),
            **recipe_inputs.teacher_rows(r),
            **recipe_inputs.alignment(r),
            **recipe_inputs.kept_documents(r),
        },
        lambda r: ("teachers", "tokenizer"),
        files=_source_files,
    ),
    Stage(
        "pretrain",
        "Train the teachers that do not exist yet.",
        lambda r, s: recipe_inputs.teacher_training(r, str(s.name)),
        lambda r: ("tokenizer", "corpus"),
        files=_training_files,
        all_ranks=True,
        steps=lambda r: [Step("pretrain", name=name) for name in r.pretrain],
    ),
    Stage(
        "student",
        "Build the start: the student before training.",
        lambda r, s: recipe_inputs.student_start(r),
        _student_needs,
        files=_start_files,
    ),
    Stage(
        "generate",
        "Let a teacher write the training answers.",
        lambda r, s: {
            **recipe_inputs.teacher_answers(r),
            **recipe_inputs.references(r),
            **recipe_inputs.teacher_precision(r),
            **recipe_inputs.alignment(r),
        },
        lambda r: ("teachers", "tokenizer", "corpus", "pretrain"),
        needs_step=lambda r, s, needed: needed.stage != "pretrain" or needed.name == (r.generate and r.generate.by),
        is_asked_for=lambda r: r.generate is not None,
    ),
    Stage(
        "strategies",
        "Put each question or conversation into the prompts of teacher and student.",
        lambda r, s: (
            recipe_inputs.sequence_lengths(r)
            | recipe_inputs.alignment(r)
            | (
                recipe_inputs.answer_settings(r)
                if s == steps.held_out_questions_step(r)
                else {"strategies": recipe_inputs.strategies_in_use(r)}
            )
        ),
        lambda r: ("teachers", "tokenizer", "corpus", "generate"),
        needs_step=lambda r, s, needed: needed.stage != "generate" or s != steps.held_out_questions_step(r),
        steps=steps.strategies_steps,
        is_asked_for=lambda r: r.uses_strategies,
    ),
    Stage(
        "capture",
        "Run the teachers once and keep their targets.",
        lambda r, s: {
            "capture": recipe_inputs.capture(r),
            "distil.losses.temperature": r.temperatures_of(s.name),
            **recipe_inputs.checkpoint_start(r),
            **recipe_inputs.teacher_precision(r),
        },
        lambda r: ("teachers", "tokenizer", "corpus", "pretrain", *steps.samples_stages(r)),
        needs_step=lambda r, s, needed: needed.stage != "strategies" or needed.name == s.name,
        files=_captured_files,
        all_ranks=True,
        steps=lambda r: steps.step_per_sample_set(r, "capture") or [Step("capture")],
        is_asked_for=lambda r: r.capture is not None,
    ),
    Stage(
        "search",
        "Find the best setting of the losses on the validation split.",
        lambda r, s: recipe_inputs.search_trials(r),
        lambda r: ("teachers", "tokenizer", "corpus", "pretrain", "student", *steps.samples_stages(r), "capture"),
        needs_step=steps.needed_for_training,
        files=_training_files,
        all_ranks=True,
        is_asked_for=lambda r: r.search is not None,
    ),
    Stage(
        "distil",
        "Train the student from its teachers.",
        lambda r, s: recipe_inputs.student_training(r, s.name),
        lambda r: (
            "teachers",
            "tokenizer",
            "corpus",
            "pretrain",
            "student",
            *steps.samples_stages(r),
            "capture",
            "search",
        ),
        needs_step=steps.needed_for_training,
        files=_training_files,
        all_ranks=True,
        steps=steps.step_per_student("distil"),
    ),
    Stage(
        "control",
        "Train the control: same start, same samples of the corpus, no teacher.",
        lambda r, s: recipe_inputs.control_training(r),
        lambda r: ("corpus", "student", *steps.samples_stages(r)),
        needs_step=steps.needed_for_training,
        files=_training_files,
        all_ranks=True,
        steps=steps.step_per_seed("control"),
        is_asked_for=lambda r: r.control is not None,
    ),
    Stage(
        "select",
        "Select the best snapshots of student and control.",
        lambda r, s: recipe_inputs.snapshot_selection(r),
        lambda r: ("teachers", "tokenizer", "corpus", "student", *steps.samples_stages(r), "distil", "control"),
        needs_step=steps.needed_for_selection,
        files=lambda r: _evaluation_files(r) if recipe_inputs.selection_metrics(r) else {},
        steps=steps.select_steps,
        is_asked_for=lambda r: r.select is not None,
    ),
    Stage(
        "answers",
        "Let every model answer the held-out questions or conversations.",
        lambda r, s: recipe_inputs.answer_settings(r) | recipe_inputs.precision(r) | recipe_inputs.quantization(r),
        lambda r: ("teachers", "tokenizer", "corpus", "pretrain", "student", "strategies", *steps.trained_stages(r)),
        needs_step=steps.needed_for_answers,
        steps=steps.answers_steps,
        is_asked_for=lambda r: r.has_answers,
    ),
    Stage(
        "evaluate",
        "Compare teacher, start, student and control.",
        lambda r, s: {
            "evaluate": recipe_inputs.section_without(r.evaluate, "batch_size"),
            "intervals": recipe_inputs.INTERVALS,
            "seeds": r.seeds,
            "corpus.sequence_length": r.corpus.sequence_length,
            "teachers.weight": recipe_inputs.teacher_weights(r),
            "distil.mix": r.distil.mix,
            **recipe_inputs.precision(r),
            **recipe_inputs.quantization(r),
            **recipe_inputs.held_out_turns(r),
            **recipe_inputs.answer_metrics(r),
            "experiments": list(r.variants),
            **({"select.by": recipe_inputs.selection_metrics(r)} if recipe_inputs.selection_metrics(r) else {}),
        },
        lambda r: ("teachers", "tokenizer", "corpus", "pretrain", "student", *steps.trained_stages(r), "answers"),
        files=_evaluation_files,
        user_files=_review_files,
    ),
    Stage(
        "export",
        "Write the student for llama.cpp, Ollama and transformers, and measure each file.",
        lambda r, s: recipe_inputs.exported_student(r),
        lambda r: ("teachers", "tokenizer", "corpus", "student", "strategies", "distil", "select"),
        needs_step=steps.needed_for_export,
        steps=steps.export_steps,
        is_asked_for=lambda r: r.export is not None,
    ),
    Stage(
        "report",
        "Write the report: one page with all results.",
        lambda r, s: {"about": r.about, "seeds": r.seeds},
        lambda r: tuple(stage.name for stage in STAGES if stage.name != "report"),
        user_files=_snapshot_curve_files,
        reads_manifests=True,
    ),
)
BY_NAME = {stage.name: stage for stage in STAGES}


def stage_named(name: str) -> Stage:
    """The stage of that name.

    Raises:
        UserError: there is no such stage.
    """
    if name not in BY_NAME:
        raise UserError(f"there is no stage {name!r}; the stages are {', '.join(BY_NAME)}")
    return BY_NAME[name]


def steps_of(recipe: "Recipe", stage: Stage) -> list[Step]:
    """The steps of a stage in this recipe; none if the recipe leaves the stage out."""
    if not stage.is_asked_for(recipe):
        return []
    return [Step(stage.name)] if stage.steps is None else stage.steps(recipe)


def needed_by(recipe: "Recipe", step: Step) -> list[Step]:
    """The steps whose outputs this step reads."""
    stage = BY_NAME[step.stage]
    others = [needed for name in stage.needs(recipe) for needed in steps_of(recipe, BY_NAME[name])]
    return [needed for needed in others if stage.needs_step(recipe, step, needed)]


def asked_for(recipe: "Recipe", name: str) -> Stage:
    """The stage of that name, if the recipe asks for it.

    Raises:
        UserError: there is no such stage, or the recipe leaves it out.
    """
    stage = stage_named(name)
    if not steps_of(recipe, stage):
        raise UserError(f"the recipe leaves `{name}` out, so there is nothing to do; add a section `{name}: {{}}`")
    return stage


def all_steps(recipe: "Recipe", until: str | None = None) -> list[Step]:
    """Every step in order; with `until`, only the steps of that stage and of the stages that it needs.

    Raises:
        UserError: `until` is no stage, or the recipe leaves it out.
    """
    names = set(BY_NAME) if until is None else {until, *_ancestors(recipe, asked_for(recipe, until))}
    return [step for stage in STAGES if stage.name in names for step in steps_of(recipe, stage)]


def _ancestors(recipe: "Recipe", stage: Stage) -> set[str]:
    needs = stage.needs(recipe)
    return set(needs).union(*(_ancestors(recipe, BY_NAME[name]) for name in needs))
