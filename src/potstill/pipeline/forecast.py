"""Forecast: how long a run will take on this machine, where its work can be counted before it begins.

The work is counted in additions and multiplications of matrix products. Their rate is that of one product, which is
measured now, times the share of it that whole models reach.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from potstill import distributed
from potstill.console import say
from potstill.device import device, time_products
from potstill.metrics import speed_rounds
from potstill.pipeline.known_models import student_config, teacher_configs, widths_of
from potstill.pipeline.run_folder import Run
from potstill.recipe import Recipe
from potstill.recipe.corpus import Corpus
from potstill.recipe.no_effect import samples_of_step
from potstill.recipe.precision import in_bfloat16
from potstill.recipe.step import Step
from potstill.recipe.teachers import PackagedTeacher

FORWARD, TRAINING = 0.9, {"fp32": 0.84, "bf16": 0.67}
"""The share of one product's rate that a forward reaches, and a step of training. In bf16, a training also casts its
weights. Measured on an AMD EPYC with SmolLM2's shapes (`python -m benchmarks --only format`)."""
SECONDS_TO_BEGIN, SECONDS_PER_STEP = 15.0, 2.0
"""Imports; and what a step does besides: it loads models, reads and writes files."""
GGUF_WEIGHTS_PER_SECOND = 8e6
SHORTEST = 60.0
"""In seconds. Of less, what is not counted is the greater part."""
SAMPLED_TOKENS = 4096
"""The tokens on which a start and its teachers are measured (`stages/student.py`)."""


@dataclass(frozen=True)
class Workload:
    """What a run computes, for each kind of model."""

    teachers: float
    """The operations of all teachers' forwards for one token."""
    student: float
    """The same of one student."""
    weights: float
    """The number of the teachers' weights that are converted from GGUF."""
    corpus_tokens: float
    train_tokens: float
    """The tokens of one training, with repetitions."""
    held_out_tokens: float


def say_how_long(recipe: Recipe, run: Run, steps: Sequence[Step]) -> None:
    """Print how long the steps will take here; nothing if that cannot be counted, or is less than a minute.

    Args:
        recipe: the recipe, with the run's number format.
        run: the run.
        steps: the steps that are not done.
    """
    if device().type != "cpu" or distributed.world_size() > 1:
        return
    work = workload(recipe, run)
    if work is None:
        return
    products = time_products(*widths_of(recipe, run))
    rates = {"fp32": products.rate(products.fp32), "bf16": products.rate(products.bf16)}
    found = seconds(recipe, work, steps, rates)
    if found >= SHORTEST:
        say(f"about {_rounded(found)} on this machine")


def workload(recipe: Recipe, run: Run) -> Workload | None:
    """What a run computes. None if it cannot be counted before it begins."""
    corpus, measured = recipe.corpus, recipe.evaluate
    others = (recipe.pretrain, recipe.search, recipe.select, recipe.student.quantization, measured.models)
    more = (measured.minimal_pairs, measured.continuations, measured.tasks)
    if not isinstance(corpus, Corpus) or corpus.layout != "packed" or any(others) or any(more):
        return None
    teachers = teacher_configs(recipe, run)
    ours = student_config(recipe, teachers)
    tokens = _trained_tokens(recipe)
    if ours is None or None in teachers.values() or None in (tokens, corpus.train_tokens, measured.documents):
        return None
    counted = [operations(config) for config in (*teachers.values(), ours)]
    if any(one is None for one in counted):
        return None
    *of_teachers, of_student = [one for one in counted if one is not None]
    converted = [
        count
        for teacher, count in zip(recipe.teachers.values(), of_teachers, strict=True)
        if isinstance(teacher, PackagedTeacher) or getattr(teacher, "gguf", None)
    ]
    # Documents are counted as one sample each: shorter ones and longer ones make up for each other.
    held_out = (measured.documents or 0) * corpus.sequence_length
    weights = sum(converted) / 2
    return Workload(sum(of_teachers), of_student, weights, corpus.train_tokens or 0, tokens or 0, held_out)


def _trained_tokens(recipe: Recipe) -> float | None:
    training, limit = recipe.distil.training, getattr(recipe.corpus, "train_tokens", None)
    if training.get("max_steps", -1) > 0:
        return float(training["max_steps"] * samples_of_step(training) * recipe.corpus.sequence_length)
    return None if limit is None else float(limit * training.get("num_train_epochs", 3))


def operations(config: Any) -> float | None:
    """The additions and multiplications of a model's products for one token, without those of attention.

    None for a mixture of experts, which uses only some of its weights.
    """
    if any("expert" in name for name in config.to_dict()):
        return None
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception:  # noqa: BLE001 (whatever transformers raises; the stage that makes the model says it)
        return None
    return 2.0 * sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Linear | Conv1D))


def seconds(recipe: Recipe, work: Workload, steps: Sequence[Step], rates: dict[str, float]) -> float:
    """The seconds of the steps.

    Args:
        recipe: the recipe, with the run's number format.
        work: what the whole run computes.
        steps: the steps that are not done.
        rates: additions and multiplications a second of one product, by format.
    """
    assert recipe.precision != "auto"
    trains_in = "bf16" if in_bfloat16(recipe.distil.training, recipe.precision) else "fp32"
    forward, training = FORWARD * rates[recipe.precision], TRAINING[trains_in] * rates[trains_in]
    candidates = 1 + len(recipe.seeds) * (len(recipe.variants) + (recipe.control is not None))
    # A backward costs two forwards, and one if only an adapter learns.
    passes = 3 if recipe.student.adapter is None else 2
    learned = passes * work.student * work.train_tokens / training
    live = 0.0 if recipe.capture is not None else work.teachers * work.train_tokens / forward
    each = {
        "teachers": work.weights / GGUF_WEIGHTS_PER_SECOND,
        "student": (work.teachers + work.student) * SAMPLED_TOKENS / forward,
        "capture": work.teachers * work.corpus_tokens / forward,
        "distil": learned + live,
        "control": learned,
        "evaluate": (work.teachers + candidates * work.student) * work.held_out_tokens / forward,
    }
    each["evaluate"] += speed_rounds.SECONDS if recipe.evaluate.speed else 0.0
    return SECONDS_TO_BEGIN + sum(SECONDS_PER_STEP + each.get(step.stage, 0.0) for step in steps)


def _rounded(found: float) -> str:
    """A duration without more digits than a forecast has."""
    if found < 90:
        return f"{round(found, -1):.0f} s"
    return f"{found / 60:.0f} min" if found < 5400 else f"{found / 3600:.1f} h"
