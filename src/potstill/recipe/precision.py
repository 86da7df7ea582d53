"""`precision:` — the number format of a run's models. A training may have one of its own."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from potstill.recipe.recipe import Recipe
    from potstill.recipe.training_fields import TrainingFields

Precision = Literal["auto", "bf16", "fp32"]


def in_bfloat16(training: Mapping[str, Any], precision: Precision) -> bool:
    """Whether a training multiplies in bfloat16: as its own fields say, or else in the run's number format."""
    return bool(training.get("bf16", precision == "bf16" and not training.get("fp16")))


def in_format(training: Mapping[str, Any], precision: Precision) -> dict[str, Any]:
    """The fields of a training, with `bf16: true` if only the run's number format says so."""
    return {**({"bf16": True} if in_bfloat16(training, precision) else {}), **training}


def teachers_in_format(recipe: "Recipe") -> list[str]:
    """The teachers that have the run's number format: those that the run trains, and those with `dtype: auto`."""
    loaded = {name: one for name, one in recipe.teachers.items() if not hasattr(one, "server")}
    given = [name for name, one in loaded.items() if one.dtype == "auto" and one.engine == "transformers"]
    return [*given, *recipe.pretrain]


def contradictions(recipe: "Recipe") -> Iterator[str]:
    """A sentence about each training whose number format contradicts `precision`."""
    if recipe.precision == "auto":
        return
    for key, training in trainings(recipe):
        wrong = "fp16" if training.get("fp16") else "bf16"
        if training.get("fp16") or training.get("bf16", recipe.precision == "bf16") != (recipe.precision == "bf16"):
            yield (
                f"`{key}.training.{wrong}: {str(training.get(wrong)).lower()}` contradicts `precision: "
                f"{recipe.precision}`; remove one of the two"
            )


def trainings(recipe: "Recipe") -> Iterator[tuple[str, "TrainingFields"]]:
    """The fields of each training in the recipe, by the key of their section."""
    yield "distil", recipe.distil.training
    if recipe.control is not None:
        yield "control", recipe.control.training
    if recipe.search is not None:
        yield "search", recipe.search.training
    for name, teacher in recipe.pretrain.items():
        yield f"pretrain.{name}", teacher.training
