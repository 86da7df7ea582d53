"""Cut: a recipe with small models, short texts and few steps; everything else stays as it is."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from potstill.errors import UserError
from potstill.models.quantization import EXTRA
from potstill.recipe import Recipe
from potstill.recipe.served import served_teachers
from potstill.recipe.teachers import NamedAtServer, NamedTeacher
from potstill.rehearsal.data_sets import TASKS
from potstill.rehearsal.small_models import Scale
from potstill.rehearsal.sources import ModelFiles, model_files

STEPS, STEPS_OF_LONG_SAMPLES, LONG = 12, 6, 1024
"""The fewest optimizer steps of a training, and those where samples have LONG tokens or more."""
HELD_OUT, VALIDATION, PAIRS, SNAPSHOTS, TRIALS = 12, 8, 5, 3, 2
"""Held-out documents, questions or prompts; samples to select by; pairs of a subtask; snapshots; trials."""
QUESTIONS = 400
"""Questions that a generator makes: as many as a stand-in of a data set has."""
NEW_TOKENS = 64
"""Of an answer. Models with random weights hardly ever end one."""
HELD_OUT_SHARE = 0.1
MOST_SAMPLES, MOST_ACCUMULATED = {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 4}, 2
INTERVALS = {"save_steps": 3, "warmup_steps": 2, "logging_steps": 1}
"""In steps; a training has at least two checkpoints."""
STEPS_BEFORE_WRITING = 2
"""Before the first sample that a student writes."""
TRAININGS = ("distil", "control", "search")


@dataclass
class CutRecipe:
    """A recipe for a rehearsal, and what is different in it."""

    content: dict[str, Any]
    cuts: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    """What was set and what is set now, by dotted key."""
    models: dict[str, tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=dict)
    """The configuration of each model, whole and cut, by dotted key."""
    files: dict[str, ModelFiles] = field(default_factory=dict)
    """The models on the hub or in folders, by the names in the recipe."""
    small: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Their cut configurations."""
    notes: list[str] = field(default_factory=list)
    """What this rehearsal cannot prove, besides what none can."""

    @property
    def recipe(self) -> Recipe:
        """The recipe itself."""
        return Recipe.model_validate(self.content)

    def rename(self, before: str, after: str) -> None:
        """Replace a model's name wherever the recipe names it."""
        for _, section, name in _named_models(self.content):
            section[name] = after if section[name] == before else section[name]

    def at_most(self, section: dict[str, Any], name: str, limit: int, key: str) -> None:
        """Lower a number, or set it where it is not set."""
        before = section.get(name)
        if before is None or before > limit:
            self.set(section, name, limit, key)

    def set(self, section: dict[str, Any], name: str, value: Any, key: str) -> None:
        """Set a value."""
        self.cuts[f"{key}.{name}".removeprefix(".")] = (section.get(name), value)
        section[name] = value


def cut_recipe(recipe: Recipe) -> CutRecipe:
    """Cut a recipe for a rehearsal.

    Raises:
        UserError: the configuration of a model is not known here, or no small model of its kind can be made.
    """
    made = CutRecipe(recipe.model_dump(mode="json", by_alias=True, exclude_unset=True))
    # They are of the whole models, and a plan would refuse these.
    made.content.pop("facts", None)
    _take_from_servers(made, recipe)
    _leave_out_quantization(made)
    _leave_out_store(made)
    _cut_models(made, recipe)
    samples = _cut_trainings(made, recipe.corpus.sequence_length)
    _cut_written_samples(made)
    _cut_corpus(made, recipe, samples)
    _cut_evaluation(made, recipe)
    if len(recipe.seeds) > 1:
        made.set(made.content, "seeds", recipe.seeds[:1], "")
    return made


def _named_models(content: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The models that a recipe names: key of the section, section, and the name within it."""
    for name, teacher in content.get("teachers", {}).items():
        if "model" in teacher:
            yield f"teachers.{name}", teacher, "model"
    if "model" in content["student"]:
        yield "student", content["student"], "model"
    others = content.get("evaluate", {}).get("models", {})
    for name in others:
        yield "evaluate.models", others, name


def _cut_models(made: CutRecipe, recipe: Recipe) -> None:
    named = list(_named_models(made.content))
    for key, section, name in named:
        gguf = section.get("gguf") if name == "model" else None
        made.files[section[name]] = model_files(section[name], f"{key}.{name}", gguf)
    own = {f"pretrain.{name}.config": one for name, one in made.content.get("pretrain", {}).items()}
    if "config" in made.content["student"]:
        own["student.config"] = made.content["student"]
    scale = Scale([*(one.config for one in made.files.values()), *(section["config"] for section in own.values())])
    for key, section, name in named:
        files = made.files[section[name]]
        in_groups = any(other.get("quantization") for _, other, at in named if other.get(at) == section[name])
        small = scale.cut(files.config, in_groups=in_groups)
        shown = key if name == "model" else f"{key}.{name}"
        made.small[section[name]], made.models[shown] = small, (files.config, small)
    for key, section in own.items():
        small = scale.cut(section["config"])
        made.models[key], section["config"] = (section["config"], small), small
    _cut_pruning(made, scale)
    for name, teacher in recipe.teachers.items():
        # Named models are small, and a stand-in has their sizes.
        if f"teachers.{name}" not in made.models and not isinstance(teacher, NamedTeacher):
            made.notes.append(f"`teachers.{name}` is on this machine, and is not cut")
        if getattr(teacher, "device_map", None) is not None:
            made.notes.append(f"`teachers.{name}.device_map`: how the teacher is spread over several devices")


def _take_from_servers(made: CutRecipe, recipe: Recipe) -> None:
    """Replace each model behind a server by itself, which is then cut as others are.

    Raises:
        UserError: the server has not said yet which model it has.
    """
    for name, teacher in served_teachers(recipe).items():
        if not isinstance(teacher, NamedAtServer):
            raise UserError(
                f"`teachers.{name}` is behind `potstill serve`, which says only when it is asked which model it has, "
                f"and a rehearsal asks no server; name the model, as in `--set 'teachers.{name}={{model: NAME}}'`"
            )
        before = made.content["teachers"][name]
        after = {key: before[key] for key in ("weight", "when") if key in before}
        made.content["teachers"][name] = after | {"model": teacher.tokenizer or teacher.model}
        made.notes.append(f"`teachers.{name}.server`: a small model here takes the place of the server")


def _leave_out_store(made: CutRecipe) -> None:
    """Let the small teacher be run, in place of targets that another run captured of the whole one."""
    capture = made.content.get("capture")
    if capture and capture.get("store") is not None:
        made.set(capture, "store", None, "capture")
        made.notes.append("`capture.store`: the small teacher is run in place of it")


def _leave_out_quantization(made: CutRecipe) -> None:
    """Leave out a quantisation whose package is not installed here."""
    sections = {f"teachers.{name}": teacher for name, teacher in made.content.get("teachers", {}).items()}
    for key, section in {**sections, "student": made.content["student"]}.items():
        method = (section.get("quantization") or {}).get("quant_method")
        if method in EXTRA and find_spec(method) is None:
            made.set(section, "quantization", None, key)
            made.notes.append(f"`{key}.quantization`, which needs {method}; pip install 'potstill[quantized]'")


def _cut_pruning(made: CutRecipe, scale: Scale) -> None:
    """A pruned student has the same share of its cut teacher as of the whole one."""
    student = made.content["student"]
    whole, small = made.models.get(f"teachers.{student.get('from')}", (None, None))
    if whole is None or small is None:
        return
    of_layers = small["num_hidden_layers"] / whole["num_hidden_layers"]
    widths = {"heads": 1 / scale.heads, "key_value_heads": 1 / scale.heads}
    widths |= {name: small[name] / whole[name] for name in ("hidden_size", "intermediate_size") if name in whole}
    if isinstance(kept := student.get("layers"), list):
        made.set(student, "layers", sorted({int(layer * of_layers) for layer in kept}), "student")
    elif kept is not None:
        made.set(student, "layers", max(1, round(kept * of_layers)), "student")
    for name, share in widths.items():
        if student.get(name) is not None:
            made.set(student, name, max(1, round(student[name] * share)), "student")


def _cut_trainings(made: CutRecipe, length: int) -> int:
    """Cut all trainings. Returns the number of samples with which each has enough steps."""
    steps = STEPS if length < LONG else STEPS_OF_LONG_SAMPLES
    samples = 1
    shared = made.content["distil"].setdefault("training", {})
    for key, section in _trainings(made.content):
        before = dict(section.get("training") or {})
        after = section["training"] = dict(before)
        for name, limit in MOST_SAMPLES.items():
            if name in before:
                made.at_most(after, name, limit if length < LONG else 1, f"{key}.training")
        if before.get("gradient_accumulation_steps", 1) > MOST_ACCUMULATED:
            made.set(after, "gradient_accumulation_steps", MOST_ACCUMULATED, f"{key}.training")
        for name, interval in INTERVALS.items():
            if before.get(name, 0) > interval or (key == "distil" and name == "save_steps"):
                made.set(after, name, interval, f"{key}.training")
        if before.get("max_steps", -1) > steps:
            made.set(after, "max_steps", steps, f"{key}.training")
        if before.get("report_to"):
            made.set(after, "report_to", "none", f"{key}.training")
        settings = {**(shared if key in TRAININGS else {}), **after}
        at_once = settings.get("per_device_train_batch_size", 8) * settings.get("gradient_accumulation_steps", 1)
        samples = max(samples, math.ceil(steps * at_once / settings.get("num_train_epochs", 3)))
    # One more, so that the last batch of an epoch is not full.
    return samples + 1


def _trainings(content: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The sections with a training: key and section."""
    for name, teacher in content.get("pretrain", {}).items():
        yield f"pretrain.{name}", teacher
    for name in TRAININGS:
        if content.get(name):
            yield name, content[name]


def _cut_written_samples(made: CutRecipe) -> None:
    sections = {"distil": made.content["distil"]}
    sections |= {f"experiments.{name}": one for name, one in made.content.get("experiments", {}).items()}
    for key, section in sections.items():
        written = section.get("on_policy")
        if written is None:
            continue
        made.at_most(written, "max_new_tokens", NEW_TOKENS, f"{key}.on_policy")
        if written.get("from_step", 0) > STEPS_BEFORE_WRITING:
            made.set(written, "from_step", STEPS_BEFORE_WRITING, f"{key}.on_policy")
        if written.get("preflight", "refuse") == "refuse":
            # It speaks against random weights, and is measured all the same.
            made.set(written, "preflight", "warn", f"{key}.on_policy")


def _cut_corpus(made: CutRecipe, recipe: Recipe, samples: int) -> None:
    corpus, has_rows = made.content["corpus"], recipe.asks or recipe.chats
    if corpus.get("validation") is not None:
        made.at_most(corpus, "validation", VALIDATION, "corpus")
    if has_rows:
        made.at_most(corpus, "train", samples, "corpus")
    else:
        made.at_most(corpus, "train_tokens", samples * (recipe.corpus.sequence_length - 1), "corpus")
    held_out = corpus.get("held_out")
    parts = {"corpus": corpus, "corpus.held_out": held_out if isinstance(held_out, dict) else {}}
    for key, part in parts.items():
        for place, source in enumerate(part.get("questions", ())):
            if "generator" in source:
                made.at_most(source, "count", QUESTIONS, f"{key}.questions.{place}")
    if isinstance(held_out, dict):
        made.at_most(held_out, "count" if has_rows else "sequences", HELD_OUT, "corpus.held_out")
    elif held_out is None or held_out < HELD_OUT_SHARE:
        # Of a short text, a small share would be nothing.
        made.set(corpus, "held_out", HELD_OUT_SHARE, "corpus")


def _cut_evaluation(made: CutRecipe, recipe: Recipe) -> None:
    content, evaluate = made.content, made.content.setdefault("evaluate", {})
    if not recipe.asks:
        made.at_most(evaluate, "documents", HELD_OUT, "evaluate")
    for name, given in evaluate.get("minimal_pairs", {}).items():
        made.at_most(given, "pairs", PAIRS, f"evaluate.minimal_pairs.{name}")
    for name, given in evaluate.get("continuations", {}).items():
        made.at_most(given, "count", HELD_OUT, f"evaluate.continuations.{name}")
    if unknown := [
        one["task"] for one in evaluate.get("tasks", []) if not one.get("path") and one["task"] not in TASKS
    ]:
        made.set(evaluate, "tasks", [one for one in evaluate["tasks"] if one["task"] not in unknown], "evaluate")
        made.notes.append(f"`evaluate.tasks`: {', '.join(unknown)}, whose data has no stand-in")
    for place, task in enumerate(evaluate.get("tasks", [])):
        made.at_most(task, "limit", HELD_OUT, f"evaluate.tasks.{place}")
    snapshots = content["distil"].get("snapshots")
    if snapshots is not None:
        every = snapshots.get("every") is not None
        made.at_most(snapshots, "every" if every else "count", 2 if every else SNAPSHOTS, "distil.snapshots")
    if recipe.has_answers:
        made.at_most(content.setdefault("answers", {}), "max_new_tokens", NEW_TOKENS, "answers")
    if content.get("search"):
        made.at_most(content["search"], "trials", TRIALS, "search")
