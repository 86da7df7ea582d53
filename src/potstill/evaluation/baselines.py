"""Baselines: models that the run did not make, each named by its folder or its name on the hub."""

from collections.abc import Mapping
from functools import partial

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from potstill.device import device, run_dtype
from potstill.evaluation.candidate_models import CandidateModel, Models
from potstill.models.pretrained import ModelSource
from potstill.pipeline import artifacts
from potstill.pipeline.work import Work
from potstill.recipe import Recipe
from potstill.recipe.candidates import Candidate


def check(recipe: Recipe) -> None:
    """Refuse a baseline that is missing or not whole, before any step runs.

    Raises:
        UserError: naming the key, the folder or the hub's name, and what is wrong.
    """
    for name in recipe.evaluate.models:
        _files(recipe, name).check()


def baselines(work: Work) -> Models:
    """The recipe's `evaluate.models`, each with its own tokenizer."""
    return {
        Candidate("baseline", name): [
            CandidateModel(
                Candidate("baseline", name),
                partial(_load_model, _files(work.recipe, name), run_dtype(work.recipe.precision)),
                _files(work.recipe, name).tokenizer,
            )
        ]
        for name in work.recipe.evaluate.models
    }


def sharing_tokens(work: Work, models: Models) -> Models:
    """The baselines whose tokenizer gives every id the same string as the run's: they can read the same tokens."""
    ours = artifacts.tokenizer(work).get_vocab()
    return {
        one: each
        for one, each in models.items()
        if all(model.tokenizer is not None and model.tokenizer().get_vocab() == ours for model in each)
    }


def compared_vocabulary(work: Work) -> int | None:
    """As `artifacts.compared_vocabulary`, limited to the head of every baseline with the run's tokens."""
    known = artifacts.compared_vocabulary(work)
    sizes = [
        _files(work.recipe, one.label).config().get_text_config().vocab_size
        for one in sharing_tokens(work, baselines(work))
    ]
    rows = artifacts.vocabulary_size(work) if known is None else known
    if all(size == rows for size in sizes) or (known is not None and min(sizes, default=known) >= known):
        return known
    # A head is padded to another size, so all models are compared on tokens alone.
    return min(rows, *sizes, max(artifacts.tokenizer(work).get_vocab().values()) + 1)


def parameters(work: Work) -> Mapping[str, int]:
    """The number of weights of each baseline. No weights are loaded."""
    found = {}
    for name in work.recipe.evaluate.models:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(_files(work.recipe, name).config())
        found[name] = sum(weight.numel() for weight in model.parameters())
    return found


def _files(recipe: Recipe, name: str) -> ModelSource:
    return ModelSource(recipe.evaluate.models[name], f"`evaluate.models.{name}`")


def _load_model(files: ModelSource, dtype: torch.dtype) -> PreTrainedModel:
    return files.model(device(), dtype=dtype).eval().requires_grad_(False)
