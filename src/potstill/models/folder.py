"""A model's folder: whether it is whole, what tells it from others, and how it is written."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from potstill.errors import UserError
from potstill.files.atomic import atomic_folder, digest, read_json, sha256

ADAPTER = "adapter_config.json"


PROVENANCE_FIELDS = ("_name_or_path", "transformers_version", "base_model_name_or_path", "peft_version")
"""What configurations tell of where weights came from, and not of what they do."""


def flaw(folder: Path) -> str | None:
    """What is wrong with a model's folder, its weights unread but for what they say of themselves; None: nothing."""
    if not folder.is_dir():
        return "is not there"
    adapter = (folder / ADAPTER).is_file()
    config = ADAPTER if adapter else "config.json"
    if _read_json(folder / config) is None:
        return f"is half-written: it has no whole {config}"
    whole = "adapter_model.safetensors" if adapter else "model.safetensors"
    index = folder / f"{whole}.index.json"
    if not index.is_file():
        return _flaw_of_weights(folder / whole)
    parts = _read_json(index)
    if not isinstance(parts, dict) or not isinstance(parts.get("weight_map"), dict):
        return f"is half-written: it has no whole {index.name}"
    flaws = (_flaw_of_weights(folder / name) for name in sorted(set(parts["weight_map"].values())))
    return next((wrong for wrong in flaws if wrong is not None), None)


def _read_json(file: Path) -> Any:
    try:
        return read_json(file)
    except UserError:
        return None


def _flaw_of_weights(file: Path) -> str | None:
    if not file.is_file():
        return f"is half-written: it has no {file.name}"
    try:
        # It compares the file's length with what its own head says.
        with safe_open(file, "pt"):
            return None
    except (SafetensorError, OSError):
        return f"is half-written: its {file.name} is cut off"


def fingerprint(folder: Path) -> str:
    """What tells a model's folder from others, by content: a copy of the same weights is the same.

    Of an adapter, this says nothing of the start that it is read upon.
    """
    configs = {name: _read_json(folder / name) for name in ("config.json", ADAPTER) if (folder / name).is_file()}
    said = {
        name: {key: value for key, value in config.items() if key not in PROVENANCE_FIELDS}
        for name, config in configs.items()
        if isinstance(config, dict)
    }
    weights = {file.name: sha256(file) for file in sorted(folder.glob("*.safetensors"))}
    return digest({"weights": weights, "configs": said})


def save_model(model: PreTrainedModel, tokenizer: Any, folder: Path) -> None:
    """Write a model and its tokenizer as a plain Hugging Face folder, under another name until it is whole."""
    with atomic_folder(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
