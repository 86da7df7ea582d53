"""Baselines: models that the run did not make, each named by its folder or its name on the hub."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from potstill.device import device, run_dtype
from potstill.errors import UserError, first_line
from potstill.evaluation.candidate_models import CandidateModel, Models
from potstill.models.folder import flaw
from potstill.pipeline import artifacts
from potstill.pipeline.work import Work
from potstill.recipe import Recipe
from potstill.recipe.candidates import Candidate


def check(recipe: Recipe) -> None:
    """Refuse a baseline that is missing or not whole, before any step runs.

    Raises:
        UserError: naming the key, the folder or the hub's name, and what is missing.
    """
    for name, source in recipe.evaluate.models.items():
        key = f"evaluate.models.{name}"
        folder = Path(source).expanduser()
        if folder.is_dir():
            check_folder(folder, key)
        _load_pretrained(AutoConfig, source, key)
        _load_pretrained(AutoTokenizer, source, key)


def check_folder(folder: Path, key: str) -> None:
    """Refuse a folder that does not hold a whole model, without reading its weights.

    Raises:
        UserError: a file is missing, cut off, or not JSON.
    """
    wrong = flaw(folder)
    if wrong is not None:
        raise UserError(f"`{key}`: {folder} {wrong}; copy it again, or name another")


def baselines(work: Work) -> Models:
    """The recipe's `evaluate.models`, each with its own tokenizer."""
    return {
        Candidate("baseline", name): [
            CandidateModel(
                Candidate("baseline", name),
                partial(_load_model, source, f"evaluate.models.{name}"),
                partial(_load_pretrained, AutoTokenizer, source, f"evaluate.models.{name}"),
            )
        ]
        for name, source in work.recipe.evaluate.models.items()
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
        _load_pretrained(AutoConfig, work.recipe.evaluate.models[one.label], f"evaluate.models.{one.label}")
        .get_text_config()
        .vocab_size
        for one in sharing_tokens(work, baselines(work))
    ]
    rows = artifacts.vocabulary_size(work) if known is None else known
    if all(size == rows for size in sizes) or (known is not None and min(sizes, default=known) >= known):
        return known
    # A head is padded to another size, so all models are compared on tokens alone.
    return min(rows, *sizes, max(artifacts.tokenizer(work).get_vocab().values()) + 1)


def parameters(work: Work) -> Mapping[str, int]:
    """The number of weights of each baseline. No weights are loaded."""
    import torch

    found = {}
    for name, source in work.recipe.evaluate.models.items():
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(_load_pretrained(AutoConfig, source, f"evaluate.models.{name}"))
        found[name] = sum(weight.numel() for weight in model.parameters())
    return found


def _load_model(source: str, key: str) -> PreTrainedModel:
    found = _load_pretrained(AutoModelForCausalLM, source, key, dtype=run_dtype("auto"))
    return found.to(device()).eval().requires_grad_(False)


def _load_pretrained(kind: Any, source: str, key: str, **how: Any) -> Any:
    folder = Path(source).expanduser()
    try:
        return kind.from_pretrained(folder if folder.is_dir() else source, **how)
    except (OSError, ValueError, SafetensorError, KeyError) as error:
        if folder.is_dir():
            raise UserError(
                f"`{key}`: {folder} is not a whole model: {first_line(error)}; copy it again, or name another"
            ) from error
        raise UserError(
            f"`{key}`: {source!r} is neither a local folder nor a model that the hub can give ({first_line(error)})"
        ) from error
