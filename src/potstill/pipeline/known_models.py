"""Known models: the configurations of a run's teachers and of its student, as far as they are known before it begins.

Nothing is downloaded and no weights are read.
"""

from typing import Any

from transformers import AutoConfig

from potstill.errors import UserError
from potstill.files.installed_packages import package_files
from potstill.files.named_files import named_folder
from potstill.models.pretrained import ModelSource
from potstill.models.size import size_of
from potstill.pipeline.run_folder import Run
from potstill.recipe import Recipe
from potstill.recipe.student import Checkpoint, FromTeacher, PrunedLayers, PrunedWidth, Scratch
from potstill.recipe.teachers import ModelTeacher, PackagedTeacher, Teacher
from potstill.teachers.gguf import sizes_in_header
from potstill.teachers.prepared import POINTER, PreparedTeacher

TYPICAL_WIDTHS = (768, 3072)
"""The widths of a layer where no model of the run is known yet."""
WIDTHS = {
    "heads": "num_attention_heads",
    "key_value_heads": "num_key_value_heads",
    "intermediate_size": "intermediate_size",
    "hidden_size": "hidden_size",
}
"""The widths of a pruned student, and the configuration's field for each."""


def teacher_configs(recipe: Recipe, run: Run) -> dict[str, Any]:
    """The configuration of each teacher, by name; None where it is not known yet."""
    found = {name: _of_a_teacher(run, name, teacher) for name, teacher in recipe.teachers.items()}
    return found | {name: _of_fields(teacher.config) for name, teacher in recipe.pretrain.items()}


def student_config(recipe: Recipe, teachers: dict[str, Any]) -> Any:
    """The student's configuration; None where it is not known yet.

    Args:
        recipe: the recipe.
        teachers: the teachers' configurations.
    """
    student = recipe.student
    if isinstance(student, Scratch):
        return _of_fields(student.config)
    if isinstance(student, Checkpoint):
        return _of_a_folder(student.model)
    assert isinstance(student, FromTeacher)
    config = teachers[student.teacher]
    if config is None or not isinstance(student, PrunedLayers | PrunedWidth):
        return config
    pruned = type(config).from_dict(config.to_dict())
    if student.layers is not None:
        pruned.num_hidden_layers = student.layers if isinstance(student.layers, int) else len(student.layers)
    for key, field in WIDTHS.items():
        if isinstance(student, PrunedWidth) and getattr(student, key) is not None:
            setattr(pruned, field, getattr(student, key))
    return pruned


def widths_of(recipe: Recipe, run: Run) -> tuple[int, int]:
    """The widths of the largest feed-forward layer among the models that are known."""
    teachers = teacher_configs(recipe, run)
    sizes = [size_of(config, 0) for config in (*teachers.values(), student_config(recipe, teachers)) if config]
    widths = [(size["hidden"], size["ffn"]) for size in sizes if size["hidden"] and size["ffn"]]
    return max(widths, key=lambda pair: pair[0] * pair[1], default=TYPICAL_WIDTHS)


def _of_a_teacher(run: Run, name: str, teacher: Teacher) -> Any:
    prepared = run.path("teachers") / name
    try:
        if (prepared / POINTER).is_file():
            return PreparedTeacher.load(prepared).config()
        if isinstance(teacher, PackagedTeacher):
            file = package_files(teacher.package, teacher.gguf, f"teachers.{name}", "gguf")[0]
            return _of_fields(sizes_in_header(file))
        if isinstance(teacher, ModelTeacher) and teacher.gguf is None:
            return _of_a_folder(teacher.model)
        if isinstance(teacher, ModelTeacher) and (folder := named_folder(teacher.model)) is not None:
            return _of_fields(sizes_in_header(folder / str(teacher.gguf)))
    except UserError:
        # Whatever is wrong with a teacher, its own stage says it.
        return None
    return None


def _of_a_folder(model: str) -> Any:
    try:
        return None if named_folder(model) is None else ModelSource(model, "").config()
    except UserError:
        return None


def _of_fields(fields: dict[str, Any] | None) -> Any:
    try:
        return None if fields is None else AutoConfig.for_model(**fields)
    except Exception:  # noqa: BLE001 (whatever transformers raises; the stage that makes the model says it)
        return None
