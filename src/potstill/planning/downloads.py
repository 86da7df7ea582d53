"""Downloads: the weights of models of the hub that are not in the hub's cache yet."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from potstill.files.named_files import named_folder
from potstill.models.folder import flaw
from potstill.models.quantization import quantization_of
from potstill.planning.jobs import Job, ReadingJob, Situation, TrainingJob, WritingJob
from potstill.planning.models import PlannedModel
from potstill.planning.ranges import ZERO, Range
from potstill.planning.stage_jobs import jobs_of
from potstill.recipe.step import Step
from potstill.recipe.student import Checkpoint
from potstill.recipe.teachers import ModelTeacher
from potstill.teachers.gguf import parts_pattern

PUBLISHED, IN_32_BITS = Range(2.0, 2.0, 4.0), Range(2.0, 4.0, 4.0)
"""Bytes of a weight: most models are published in 16 bits, and some in 32, as their configuration may say."""
QUANTISED, OF_GGUF = Range(0.5, 1.0, 2.0), Range(0.3, 0.8, 2.1)
"""The same of models that are published with fewer bits."""
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True)
class HubFiles:
    """A model of the hub, or a GGUF file of one."""

    name: str
    revision: str | None = None
    gguf: str | None = None


def fetched_by(steps: Sequence[Step], at: Situation, *, here: bool) -> dict[Step, Range]:
    """The bytes that steps fetch: each model once, in the first step that loads it.

    Args:
        steps: those that are left.
        at: the recipe and its models. A model whose configuration is not known is not counted.
        here: whether the run has the hub's cache of this machine; without it, nothing is there yet.
    """
    fetched: dict[Step, Range] = {}
    models, seen = list(_on_hub(at)), set[HubFiles]()
    for step in steps if models else ():
        loaded = list(_loaded(step, at))
        for model, source in models:
            if source not in seen and any(one is model for one in loaded):
                seen.add(source)
                fetched[step] = fetched.get(step, ZERO) + _bytes_of(model, source, here=here)
    return fetched


def _on_hub(at: Situation) -> Iterator[tuple[PlannedModel, HubFiles]]:
    recipe, models = at.recipe, at.models
    found: list[tuple[PlannedModel | None, HubFiles]] = [
        (models.teachers.get(name), HubFiles(given.model, given.revision, given.gguf))
        for name, given in recipe.teachers.items()
        if isinstance(given, ModelTeacher)
    ]
    if isinstance(recipe.student, Checkpoint):
        found.append((models.student, HubFiles(recipe.student.model, recipe.student.revision)))
    found += [(models.others.get(name), HubFiles(given)) for name, given in recipe.evaluate.models.items()]
    return ((model, one) for model, one in found if model is not None and named_folder(one.name) is None)


def _loaded(step: Step, at: Situation) -> Iterator[PlannedModel]:
    """The models that a step loads from where the recipe says. The student is in the run folder once it is built."""
    if step.stage == "teachers":
        # llama.cpp's files are found there, and others are converted. Any other teacher is loaded when it is used.
        teachers = at.models.teachers.values()
        yield from (one for one in teachers if getattr(at.recipe.teachers.get(one.name), "gguf", None) is not None)
    models = [model for job in jobs_of(step, at) for model in _models_of(job)]
    yield from (one for one in models if one is not at.models.student or step.stage == "student")
    if step.stage == "evaluate":
        yield from at.models.others.values()


def _models_of(job: Job) -> list[PlannedModel]:
    if isinstance(job, TrainingJob):
        return [one.model for one in job.teachers]
    return [job.model] if isinstance(job, ReadingJob | WritingJob) else []


def _bytes_of(model: PlannedModel, source: HubFiles, *, here: bool) -> Range:
    """The bytes of a model's files of weights that are still to be fetched."""
    whole = _of_weight(model, source) * float(model.parameters.total)
    folder = _snapshot(source) if here else None
    if folder is None:
        return whole
    files = _files(folder, source)
    if _is_whole(folder, source, files):
        return ZERO
    there = float(sum(file.stat().st_size for file in files))
    return Range(*(max(0.0, one - there) for one in whole.to_list()))


def _of_weight(model: PlannedModel, source: HubFiles) -> Range:
    if source.gguf is not None:
        return OF_GGUF
    if quantization_of(model.config) is not None:
        return QUANTISED
    return IN_32_BITS if model.config.dtype is torch.float32 else PUBLISHED


def _snapshot(source: HubFiles) -> Path | None:
    """The folder of a model in the hub's cache; None if it has nothing of the model's."""
    for name in filter(None, (source.gguf, "config.json")):
        file = None
        with suppress(HFValidationError):  # no name of a repository; the stage that loads it says so
            file = try_to_load_from_cache(source.name, name, revision=source.revision)
        if isinstance(file, str):
            return next(one for one in Path(file).parents if one.parent.name == "snapshots")
    return None


def _files(folder: Path, source: HubFiles) -> list[Path]:
    """The files of weights that are whole."""
    patterns = WEIGHTS if source.gguf is None else (parts_pattern(source.gguf),)
    several = (sorted(folder.glob(pattern)) for pattern in patterns)
    return next((files for files in several if files), [])


def _is_whole(folder: Path, source: HubFiles, files: Sequence[Path]) -> bool:
    if source.gguf is None:
        return flaw(folder) is None
    parts = re.search(r"-of-(\d{5})\.gguf$", source.gguf)
    return len(files) == (1 if parts is None else int(parts[1]))
