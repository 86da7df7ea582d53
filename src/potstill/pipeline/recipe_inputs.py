"""Reads: what steps take from a recipe, so that exactly those run again that another recipe would change.

It imports nothing heavy, because the table of stages is made of it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from potstill.recipe import Recipe


def training_text(recipe: "Recipe") -> Any:
    """What of the corpus decides which text is trained on; not how it becomes samples."""
    keys = {"questions", "validation", "train", "held_out"} if recipe.asks else {"sources", "cleaning", "held_out"}
    return recipe.corpus.model_dump(mode="json", by_alias=True, include=keys)


def teacher_weights(recipe: "Recipe") -> dict[str, float]:
    """Each teacher's share among several."""
    return {name: teacher.weight for name, teacher in recipe.all_teachers.items()}


def random_offset(recipe: "Recipe") -> dict[str, bool]:
    """What of the corpus is done while training: the corpus that lies on the disk is the same."""
    return {"corpus.random_offset": getattr(recipe.corpus, "random_offset", False)}


def teacher_training(recipe: "Recipe", name: str) -> dict[str, Any]:
    """What a teacher's training depends on; its weight among others is the student's business."""
    asked = {"strategies": strategies_in_use(recipe), **sequence_lengths(recipe)} if recipe.asks else {}
    return {f"pretrain.{name}": section_without(recipe.pretrain[name], "weight") | random_offset(recipe) | asked}


def strategies_in_use(recipe: "Recipe") -> dict[str, Any]:
    """The strategies that are in use: an answer has the room that the longest of all their prompts leaves it."""
    return {
        sample_set.strategy: recipe.all_strategies[sample_set.strategy] for sample_set in recipe.sample_sets.values()
    }


def sequence_lengths(recipe: "Recipe") -> dict[str, Any]:
    """How long what is read may be."""
    names = ("sequence_length", "teacher_length") if recipe.asks else ("sequence_length",)
    return {f"corpus.{name}": getattr(recipe.corpus, name) for name in names}


def answer_settings(recipe: "Recipe") -> dict[str, Any]:
    """How every model is asked; the answers' prompt by its content, whatever its name."""
    how = section_without(recipe.answers, "batch_size", "teachers", "strategy")
    return {"answers": how | {"prompt": recipe.all_strategies[recipe.answers.strategy].student}}


def student_start(recipe: "Recipe") -> dict[str, Any]:
    """What a start is made of, and what it is looked at with."""
    asked = {"strategies": first_student_prompt(recipe)} if recipe.asks else {}
    made_of = {"student": recipe.student, "corpus.sequence_length": recipe.corpus.sequence_length}
    return {**made_of, **start_precision(recipe), **asked}


def first_student_prompt(recipe: "Recipe") -> Any:
    """How the first of the students is asked (questions only)."""
    return recipe.all_strategies[recipe.sample_set_of(recipe.first_variant).strategy].student


def student_training(recipe: "Recipe", name: str | None) -> dict[str, Any]:
    """What a student's training depends on, under the keys of a recipe with one student."""
    given = recipe.distil.model_copy(update={"losses": recipe.losses_of(name)})
    return {
        "distil": section_without(given, *_unused_snapshots(recipe)),
        "teachers.weight": teacher_weights(recipe),
        **random_offset(recipe),
        **adapter_settings(recipe),
    }


def search_trials(recipe: "Recipe") -> dict[str, Any]:
    """What the trials of a search depend on; of their weights they keep the best, whatever students do."""
    of_students = student_training(recipe, recipe.tried_on)
    given = {key: value for key, value in of_students["distil"].items() if key not in ("keep", "snapshots")}
    return {"search": recipe.search, **of_students, "distil": given}


def control_training(recipe: "Recipe") -> dict[str, Any]:
    """What the control's training depends on."""
    distil = section_without(recipe.distil, "losses", "mix", "reduction", *_unused_snapshots(recipe))
    return {"control": recipe.control, "distil": distil, **random_offset(recipe), **adapter_settings(recipe)}


def snapshot_selection(recipe: "Recipe") -> dict[str, Any]:
    """What a choice among snapshots depends on: the rule, and how sure it has to be."""
    assert recipe.select is not None
    measured = recipe.evaluate
    pairs = {name: given for name, given in measured.minimal_pairs.items() if name in selection_metrics(recipe)}
    own = {metric.partition("/")[0] for metric in selection_metrics(recipe)}
    prompts = {name: given for name, given in measured.continuations.items() if name in own}
    tasks = measured.tasks if any("/" in metric for metric in selection_metrics(recipe)) else []
    sure = {f"evaluate.{key}": getattr(recipe.evaluate, key) for key in ("confidence", "resamples")}
    merge = {"student.merge": recipe.student.merge} if recipe.student.adapter else {}
    shape = {"corpus.sequence_length": recipe.corpus.sequence_length}
    return {
        "select": recipe.select,
        "evaluate.minimal_pairs": pairs,
        "evaluate.tasks": tasks,
        "evaluate.continuations": prompts,
        **sure,
        **shape,
        **quantization(recipe),
        **merge,
    }


def selection_metrics(recipe: "Recipe") -> list[str]:
    """The metrics half of whose items snapshots are chosen on, so that only the others are reported."""
    return [] if recipe.select is None else [metric for metric in recipe.select.by if metric != "loss"]


def _unused_snapshots(recipe: "Recipe") -> tuple[str, ...]:
    """A training that keeps no snapshots is what it was before there were any."""
    return () if recipe.distil.snapshots else ("snapshots",)


def checkpoint_start(recipe: "Recipe") -> dict[str, str]:
    """A student that is not made of its teacher is compared with it on tokens, and not on all that its head has."""
    return {"student.start": recipe.student.start} if recipe.student.start == "checkpoint" else {}


def start_precision(recipe: "Recipe") -> dict[str, Any]:
    """The number format that the start is kept in, where it is not float32."""
    return {"distil.training.bf16": True} if recipe.start_in_bfloat16 else {}


def quantization(recipe: "Recipe") -> dict[str, Any]:
    """The bits that the start is loaded in; on the disk it is the same."""
    return {"student.quantization": recipe.student.quantization} if recipe.student.quantization else {}


def adapter_settings(recipe: "Recipe") -> dict[str, Any]:
    """What is trained upon the start, where that is not the start itself."""
    student = recipe.student
    adapter = {"student.adapter": student.adapter, "student.merge": student.merge} if student.adapter else {}
    return adapter | quantization(recipe)


def section_without(section: Any, *left_out: str) -> Any:
    """A section without the keys that change how it is computed and not what comes out."""
    return section and section.model_dump(mode="json", by_alias=True, exclude=set(left_out))
