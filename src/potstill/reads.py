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
    asked = {"prompts": strategies(recipe), **lengths(recipe)} if recipe.asks else {}
    return {f"pretrain.{name}": all_but(recipe.pretrain[name], "weight") | samples(recipe) | asked}


def strategies(recipe: "Recipe") -> dict[str, Any]:
    """The strategies that are in use: an answer has the room that the longest of all their prompts leaves it."""
    return {lesson.strategy: recipe.strategies[lesson.strategy] for lesson in recipe.lessons.values()}


def lengths(recipe: "Recipe") -> dict[str, Any]:
    """How long what is read may be."""
    names = ("sequence_length", "teacher_length") if recipe.asks else ("sequence_length",)
    return {f"corpus.{name}": getattr(recipe.corpus, name) for name in names}


def asked_with(recipe: "Recipe") -> dict[str, Any]:
    """How every model is asked; the answers' prompt by its content, whatever its name."""
    how = all_but(recipe.answers, "batch_size", "teachers", "prompt")
    return {"answers": how | {"prompt": recipe.strategies[recipe.answers.prompt].student}}


def distilled(recipe: "Recipe", name: str | None) -> dict[str, Any]:
    """What a student's training depends on, under the keys of a recipe with one student."""
    given = recipe.distil.model_copy(update={"losses": recipe.losses_of(name)})
    return {"distil": given, "teachers.weight": weights(recipe), **samples(recipe), **adapted(recipe)}


def searched(recipe: "Recipe") -> dict[str, Any]:
    """What the trials of a search depend on; of their weights they keep the best, whatever students do."""
    of_students = distilled(recipe, recipe.tried_on)
    return {"search": recipe.search, **of_students, "distil": all_but(of_students["distil"], "keep")}


def foreign_start(recipe: "Recipe") -> dict[str, str]:
    """A student that is not made of its teacher is compared with it on tokens, and not on all that its head has."""
    return {"student.start": recipe.student.start} if recipe.student.start == "checkpoint" else {}


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
