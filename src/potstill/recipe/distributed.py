"""`distributed:` — how the ranks of a run train one model together."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from potstill.distributed import world_size
from potstill.recipe.precision import in_format, trainings
from potstill.recipe.section import Section
from potstill.recipe.teachers import ServerTeacher

if TYPE_CHECKING:
    from potstill.recipe.recipe import Recipe


class Distributed(Section):
    """The work of several ranks on one training. A single rank always trains whole models."""

    strategy: Literal["ddp", "fsdp2"] = "ddp"
    """`ddp` (default): each rank has whole models. `fsdp2`: each rank has a part of the student, of its gradients and
    of its optimizer, and a part of each teacher beside it. Layers are gathered when they run."""


def training_fields(recipe: "Recipe", training: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a training for transformers: in the run's number format, and sharded if the recipe says so."""
    fields = in_format(training, recipe.precision)
    if not is_sharded(recipe):
        return fields
    # A rank would otherwise hold all gradients from the first micro-batch of a step to the last.
    reduced = {"gradient_accumulation_kwargs": {"sync_each_batch": True}}
    return {**fields, "fsdp": True, "accelerator_config": {**(fields.get("accelerator_config") or {}), **reduced}}


def is_sharded(recipe: "Recipe") -> bool:
    """Whether the ranks of this process's run share models."""
    return recipe.distributed.strategy == "fsdp2" and world_size() > 1


def unshardable(recipe: "Recipe") -> Iterator[str]:
    """A sentence about each setting that `fsdp2` cannot do."""
    if recipe.distributed.strategy == "ddp":
        return
    key, remedy = "`distributed.strategy: fsdp2`", "use `ddp`"
    if recipe.student.quantization is not None:
        yield f"{key} cannot split a quantised student; remove `student.quantization`, or {remedy}"
    for name, training in trainings(recipe):
        if training.get("deepspeed") is not None:
            yield f"{key} and `{name}.training.deepspeed` both split the student; remove one of the two"
    if recipe.capture is not None:
        return
    for name, teacher in recipe.teachers.items():
        if isinstance(teacher, ServerTeacher):
            yield (
                f"{key} splits the teachers among the ranks, and `teachers.{name}` has no weights here; add "
                f"`capture: {{}}`, or {remedy}"
            )
            continue
        settings = {"engine": teacher.engine == "llama_cpp", "quantization": teacher.quantization is not None}
        for setting in (one for one, is_given in {**settings, "device_map": teacher.device_map}.items() if is_given):
            yield (
                f"{key} splits the teachers among the ranks, and `teachers.{name}.{setting}` does not allow that; "
                f"remove it, add `capture: {{}}`, or {remedy}"
            )
