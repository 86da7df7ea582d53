"""Reads: what steps take from a recipe, so that exactly those run again that another recipe would change.

It imports nothing heavy, because the table of stages is made of it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from potstill.recipe import Recipe


def text_of(recipe: "Recipe") -> Any:
    """What of the corpus decides which text is trained on; not how it becomes samples."""
    keys = {"questions", "validation", "train", "held_out"} if recipe.asks else {"sources", "cleaning", "held_out"}
    return recipe.corpus.model_dump(mode="json", by_alias=True, include=keys)


def weights(recipe: "Recipe") -> dict[str, float]:
    """Each teacher's share among several."""
    return {name: teacher.weight for name, teacher in recipe.all_teachers.items()}


def samples(recipe: "Recipe") -> dict[str, bool]:
    """What of the corpus is done while training: the corpus that lies on the disk is the same."""
    return {"corpus.random_offset": getattr(recipe.corpus, "random_offset", False)}


def of_teacher(recipe: "Recipe", name: str) -> dict[str, Any]:
    """What a teacher's training depends on; its weight among others is the student's business."""
    asked = {"strategies": strategies(recipe), **lengths(recipe)} if recipe.asks else {}
    return {f"pretrain.{name}": all_but(recipe.pretrain[name], "weight") | samples(recipe) | asked}


def strategies(recipe: "Recipe") -> dict[str, Any]:
    """The strategies that are in use: an answer has the room that the longest of all their prompts leaves it."""
    return {
        sample_set.strategy: recipe.all_strategies[sample_set.strategy] for sample_set in recipe.sample_sets.values()
    }


def lengths(recipe: "Recipe") -> dict[str, Any]:
    """How long what is read may be."""
    names = ("sequence_length", "teacher_length") if recipe.asks else ("sequence_length",)
    return {f"corpus.{name}": getattr(recipe.corpus, name) for name in names}


def asked_with(recipe: "Recipe") -> dict[str, Any]:
    """How every model is asked; the answers' prompt by its content, whatever its name."""
    how = all_but(recipe.answers, "batch_size", "teachers", "prompt")
    return {"answers": how | {"prompt": recipe.all_strategies[recipe.answers.strategy].student}}


def started(recipe: "Recipe") -> dict[str, Any]:
    """What a start is made of, and what it is looked at with."""
    asked = {"strategies": asked_first(recipe)} if recipe.asks else {}
    made_of = {"student": recipe.student, "corpus.sequence_length": recipe.corpus.sequence_length}
    return {**made_of, **kept_in_bits(recipe), **asked}


def asked_first(recipe: "Recipe") -> Any:
    """How the first of the students is asked (questions only)."""
    return recipe.all_strategies[recipe.sample_set_of(recipe.first_variant).strategy].student


def distilled(recipe: "Recipe", name: str | None) -> dict[str, Any]:
    """What a student's training depends on, under the keys of a recipe with one student."""
    given = recipe.distil.model_copy(update={"losses": recipe.losses_of(name)})
    return {
        "distil": all_but(given, *_not_kept(recipe)),
        "teachers.weight": weights(recipe),
        **samples(recipe),
        **adapted(recipe),
    }


def searched(recipe: "Recipe") -> dict[str, Any]:
    """What the trials of a search depend on; of their weights they keep the best, whatever students do."""
    of_students = distilled(recipe, recipe.tried_on)
    given = {key: value for key, value in of_students["distil"].items() if key not in ("keep", "snapshots")}
    return {"search": recipe.search, **of_students, "distil": given}


def controlled(recipe: "Recipe") -> dict[str, Any]:
    """What the control's training depends on."""
    distil = all_but(recipe.distil, "losses", "mix", "reduction", *_not_kept(recipe))
    return {"control": recipe.control, "distil": distil, **samples(recipe), **adapted(recipe)}


def selected(recipe: "Recipe") -> dict[str, Any]:
    """What a choice among snapshots depends on: the rule, and how sure it has to be."""
    assert recipe.select is not None
    measured = recipe.evaluate
    pairs = {name: given for name, given in measured.minimal_pairs.items() if name in chosen_on(recipe)}
    own = {metric.partition("/")[0] for metric in chosen_on(recipe)}
    prompts = {name: given for name, given in measured.continuations.items() if name in own}
    tasks = measured.tasks if any("/" in metric for metric in chosen_on(recipe)) else []
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
        **quantized(recipe),
        **merge,
    }


def chosen_on(recipe: "Recipe") -> list[str]:
    """The metrics half of whose items snapshots are chosen on, so that only the others are reported."""
    return [] if recipe.select is None else [metric for metric in recipe.select.by if metric != "loss"]


def _not_kept(recipe: "Recipe") -> tuple[str, ...]:
    """A training that keeps no snapshots is what it was before there were any."""
    return () if recipe.distil.snapshots else ("snapshots",)


def foreign_start(recipe: "Recipe") -> dict[str, str]:
    """A student that is not made of its teacher is compared with it on tokens, and not on all that its head has."""
    return {"student.start": recipe.student.start} if recipe.student.start == "checkpoint" else {}


def kept_in_bits(recipe: "Recipe") -> dict[str, Any]:
    """The number format that the start is kept in, where it is not float32."""
    return {"distil.training.bf16": True} if recipe.start_in_bfloat16 else {}


def quantized(recipe: "Recipe") -> dict[str, Any]:
    """The bits that the start is loaded in; on the disk it is the same."""
    return {"student.quantization": recipe.student.quantization} if recipe.student.quantization else {}


def adapted(recipe: "Recipe") -> dict[str, Any]:
    """What is trained upon the start, where that is not the start itself."""
    student = recipe.student
    adapter = {"student.adapter": student.adapter, "student.merge": student.merge} if student.adapter else {}
    return adapter | quantized(recipe)


def all_but(section: Any, *left_out: str) -> Any:
    """A section without the keys that change how it is computed and not what comes out."""
    return section and section.model_dump(mode="json", by_alias=True, exclude=set(left_out))
