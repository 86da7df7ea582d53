"""Models of a recipe before any of them is loaded: their configurations, and their parameters by part."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from huggingface_hub import constants
from transformers import CONFIG_MAPPING

from potstill.errors import UserError, first_line
from potstill.files.installed_packages import package_files
from potstill.files.named_data import named_data
from potstill.files.named_files import named_folder, named_path
from potstill.models.pretrained import ModelSource
from potstill.models.size import size_of
from potstill.planning.trace import config_of, model_on_meta, quiet
from potstill.recipe import Recipe
from potstill.recipe.served import served_teachers
from potstill.recipe.student import Adapter, Checkpoint, FromTeacher, PrunedLayers, PrunedWidth, Scratch
from potstill.recipe.teachers import Llama2cTeacher, ModelTeacher, NamedTeacher, PackagedTeacher, ServerTeacher, Teacher
from potstill.students.adapters import with_adapter
from potstill.students.prune_layers import chosen_layers
from potstill.teachers.gguf import sizes_in_header
from potstill.teachers.llama2c import read_shape

WIDTHS = {
    "heads": "num_attention_heads",
    "key_value_heads": "num_key_value_heads",
    "intermediate_size": "intermediate_size",
    "hidden_size": "hidden_size",
}
"""The widths of a pruned student, and the configuration's field for each."""
STUDENT = "student"
TYPICAL_WIDTHS = (768, 3072)
"""The widths of a layer where no model of the run is known yet."""


@dataclass(frozen=True)
class Parameters:
    """The parameters of a model. A head that is tied to the embeddings is counted with them."""

    embeddings: int
    head: int
    body: int
    trained: int
    """Those that learn, an adapter's included; 0 for a teacher."""
    adapter: int = 0

    @property
    def total(self) -> int:
        """All of them, without an adapter."""
        return self.embeddings + self.head + self.body

    @property
    def frozen(self) -> int:
        """Those that do not learn."""
        return self.total + self.adapter - self.trained


@dataclass(frozen=True)
class PlannedModel:
    """A model of the recipe."""

    name: str
    config: Any
    parameters: Parameters
    converts: bool = False
    """Whether its weights are first converted from another format."""


@dataclass(frozen=True)
class RecipeModels:
    """The models that are known, and a sentence about each that is not."""

    teachers: Mapping[str, PlannedModel]
    student: PlannedModel | None
    others: Mapping[str, PlannedModel]
    """Models that are only measured."""
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """The names of those that are not known, but for teachers behind servers."""

    def __iter__(self) -> Any:
        known = [*self.teachers.values(), self.student, *self.others.values()]
        return (one for one in known if one is not None)


def models_of(recipe: Recipe, prepared: Mapping[str, Any], *, ask_hub: bool) -> RecipeModels:
    """Every model of a recipe, as far as it is known before the run.

    Args:
        recipe: the recipe.
        prepared: the configurations of teachers that the run has prepared, by name.
        ask_hub: whether to ask the hub for a configuration that is neither here nor in `facts`.
    """
    served = served_teachers(recipe)
    notes = [f"`teachers.{name}` runs behind a server: its time is not counted" for name in served]
    configs: dict[str, Any] = {}
    finder = _Finder(recipe, ask_hub, notes)
    for name, teacher in recipe.teachers.items():
        configs[name] = prepared.get(name) or finder.of_teacher(name, teacher)
    vocabulary = vocabulary_of(recipe, configs)
    for name, trained in recipe.pretrain.items():
        configs[name] = finder.of_fields(trained.config, f"pretrain.{name}.config", vocabulary)
    student = finder.of_student(configs, vocabulary)
    others = {name: finder.of_name(model, f"evaluate.models.{name}") for name, model in recipe.evaluate.models.items()}
    teachers = {
        name: _planned(name, config, notes, trains=name in recipe.pretrain, converts=_converts(recipe, name))
        for name, config in configs.items()
        if name not in served
    }
    made = _planned(STUDENT, student, notes, trains=True, adapter=recipe.student.adapter)
    measured = {name: _planned(name, config, notes) for name, config in others.items()}
    missing = [name for name, one in {**teachers, STUDENT: made, **measured}.items() if one is None]
    return RecipeModels(
        _known(teachers), made, _known(measured), notes=tuple(dict.fromkeys(notes)), missing=tuple(missing)
    )


def _known(found: Mapping[str, PlannedModel | None]) -> dict[str, PlannedModel]:
    return {name: one for name, one in found.items() if one is not None}


def vocabulary_of(recipe: Recipe, teachers: Mapping[str, Any]) -> int | None:
    """The number of logits of a model that the run makes; None where it is not known yet."""
    if recipe.tokenizer is not None:
        file = getattr(recipe.tokenizer, "file", None)
        return getattr(recipe.tokenizer, "vocab_size", None) or (None if file is None else _tokens_in(file))
    first = teachers.get(next(iter(recipe.teachers)))
    return None if first is None else int(first.get_text_config().vocab_size)


def _tokens_in(file: str) -> int | None:
    try:
        content = json.loads(named_path(file).read_bytes())
        ids = [*content["model"]["vocab"].values(), *(one["id"] for one in content.get("added_tokens", ()))]
        return max(ids) + 1
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@dataclass(frozen=True)
class _Finder:
    """Finds configurations, and notes those that cannot be had."""

    recipe: Recipe
    ask_hub: bool
    notes: list[str]

    def of_teacher(self, name: str, teacher: Teacher) -> Any:
        key = f"teachers.{name}"
        if isinstance(teacher, ServerTeacher):
            return None
        try:
            if isinstance(teacher, PackagedTeacher):
                file = package_files(teacher.package, teacher.gguf, key, "gguf")[0]
                return self._or_note(sizes_in_header(file), key, f"{teacher.gguf} has no header that can be read")
            if isinstance(teacher, Llama2cTeacher):
                return read_shape(named_path(teacher.llama2c), f"{key}.llama2c").config
            if isinstance(teacher, NamedTeacher):
                found = named_data(teacher.data).on_this_machine("model")
                if found is None:
                    return self._note(key, f"it is not on this machine; `potstill data {teacher.data} --fetch` gets it")
                return read_shape(found[0][0], f"{key}.data").config
        except UserError as error:
            return self._note(key, str(error))
        assert isinstance(teacher, ModelTeacher)
        folder = named_folder(teacher.model)
        if teacher.gguf is not None and folder is not None:
            fields = sizes_in_header(folder / teacher.gguf)
            return self._or_note(fields, key, f"{teacher.gguf} has no header that can be read")
        return self.of_name(teacher.model, key, teacher.revision)

    def of_name(self, model: str, key: str, revision: str | None = None) -> Any:
        """The configuration of a folder, or of a model of the hub: from the cache, from `facts`, or from the hub."""
        try:
            if named_folder(model) is not None:
                return ModelSource(model, f"`{key}`").config()
        except UserError as error:
            return self._note(key, str(error))
        cached = _of_hub(model, revision, local_files_only=True)
        if cached is not None:
            return cached
        if model in self.recipe.facts.models:
            return self.of_fields(self.recipe.facts.models[model], f"facts.models.{model}", None)
        found = _of_hub(model, revision, local_files_only=False) if self.ask_hub else None
        return found or self._note(
            key,
            f"the configuration of {model} is neither here nor can it be had from the hub; give it in "
            f"`facts.models`, as the model's config.json has it",
        )

    def of_fields(self, fields: Mapping[str, Any], key: str, vocabulary: int | None) -> Any:
        given = dict(fields)
        if vocabulary is not None:
            given.setdefault("vocab_size", vocabulary)
        if given["model_type"] not in CONFIG_MAPPING:
            return self._note(key, f"transformers has no {given['model_type']!r}")
        if "vocab_size" not in given:
            self.notes.append(f"`{key}.vocab_size` is not known yet; the architecture's own is counted with")
        try:
            with quiet():
                return config_of(given)
        except Exception as error:  # noqa: BLE001 (whatever transformers raises; the stage that makes it says more)
            return self._note(key, f"transformers makes no configuration of it ({first_line(error)})")

    def of_student(self, teachers: Mapping[str, Any], vocabulary: int | None) -> Any:
        student = self.recipe.student
        if isinstance(student, Scratch):
            return self.of_fields(student.config, "student.config", vocabulary)
        if isinstance(student, Checkpoint):
            return self.of_name(student.model, "student.model", student.revision)
        assert isinstance(student, FromTeacher)
        config = teachers.get(student.teacher)
        if config is None or not isinstance(student, PrunedLayers | PrunedWidth):
            return config
        try:
            return pruned(config, student)
        except Exception as error:  # noqa: BLE001 (whatever transformers says of widths that do not fit)
            return self._note("student", first_line(error))

    def _or_note(self, fields: Mapping[str, Any] | None, key: str, why: str) -> Any:
        return self._note(key, why) if fields is None else self.of_fields(fields, key, None)

    def _note(self, key: str, why: str) -> Any:
        """None, and a note that says why."""
        self.notes.append(f"`{key}` is not planned: {why}")
        return None


def pruned(config: Any, student: PrunedLayers | PrunedWidth) -> Any:
    """The configuration of a student without some of its teacher's layers or channels."""
    fields = config.to_dict()
    if student.layers is not None:
        total = config.get_text_config().num_hidden_layers
        fields = of_layers(config, student.layers if isinstance(student.layers, list) else _kept(total, student))
    for key, field in WIDTHS.items():
        if isinstance(student, PrunedWidth) and getattr(student, key) is not None:
            fields[config.attribute_map.get(field, field)] = getattr(student, key)
    return type(config).from_dict(fields)


def of_layers(config: Any, kept: Sequence[int]) -> dict[str, Any]:
    """The fields of a configuration with these layers alone."""
    total = config.get_text_config().num_hidden_layers
    fields = {
        key: [value[place] for place in kept if place < total]
        if isinstance(value, list) and len(value) == total
        else value
        for key, value in config.to_dict().items()
    }
    return fields | {config.attribute_map.get("num_hidden_layers", "num_hidden_layers"): len(kept)}


def _kept(total: int, student: PrunedLayers | PrunedWidth) -> list[int]:
    assert isinstance(student.layers, int)
    if student.layers > total or student.rule == "importance":
        return list(range(student.layers))
    return chosen_layers(total, student.layers, student.rule)


def _of_hub(model: str, revision: str | None, **how: bool) -> Any:
    if how["local_files_only"] is False and constants.HF_HUB_OFFLINE:
        return None
    try:
        with quiet():
            return ModelSource(model, "it", {"revision": revision, **how}).config()
    except Exception:  # noqa: BLE001 (no such model, no consent, no network)
        return None


def _converts(recipe: Recipe, name: str) -> bool:
    teacher = recipe.teachers.get(name)
    if isinstance(teacher, Llama2cTeacher | NamedTeacher):
        return True
    return getattr(teacher, "gguf", None) is not None and getattr(teacher, "engine", "") == "transformers"


def _planned(
    name: str,
    config: Any,
    notes: list[str],
    *,
    trains: bool = False,
    adapter: Adapter | None = None,
    converts: bool = False,
) -> PlannedModel | None:
    if config is None:
        return None
    try:
        counted = _counted(json.dumps(config.to_dict(), sort_keys=True, default=str), trains, _as_text(adapter))
    except Exception as error:  # noqa: BLE001 (whatever transformers or peft raises; the stage that makes it says more)
        notes.append(f"`{name}` is not planned: no model can be made of its configuration ({first_line(error)})")
        return None
    return PlannedModel(name, config, counted, converts)


def _as_text(adapter: Mapping[str, Any] | None) -> str | None:
    return None if adapter is None else json.dumps(adapter, sort_keys=True)


def parameters_of(config: Any) -> Parameters:
    """The parameters of a model that does not learn."""
    return _counted(json.dumps(config.to_dict(), sort_keys=True, default=str), trains=False, adapter=None)


@cache
def _counted(config: str, trains: bool, adapter: str | None) -> Parameters:
    model: Any = model_on_meta(config_of(json.loads(config)))
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    inside, outside = ({id(one): one.numel() for one in end.parameters()} if end is not None else {} for end in ends)
    total = sum(one.numel() for one in model.parameters())
    embeddings = sum(inside.values())
    head = sum(size for name, size in outside.items() if name not in inside)
    trained, extra = total if trains else 0, 0
    if adapter is not None:
        with quiet():
            adapted = with_adapter(model, json.loads(adapter), seed=0)
        trained, every = adapted.get_nb_trainable_parameters()
        extra = every - total
    return Parameters(embeddings, head, total - embeddings - head, trained, extra)


def widths_of(models: RecipeModels) -> tuple[int, int]:
    """The widths of the largest feed-forward layer among the models that are known."""
    sizes = [size_of(one.config, 0) for one in models]
    widths = [(size["hidden"], size["ffn"]) for size in sizes if size["hidden"] and size["ffn"]]
    return max(widths, key=lambda pair: pair[0] * pair[1], default=TYPICAL_WIDTHS)
