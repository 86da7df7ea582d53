"""Size: the shapes and parameters of models, and a table that compares them."""

from collections.abc import Mapping, Sequence
from typing import Any

from potstill.console import table
from potstill.errors import UserError

SHAPE = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "key_value_heads": "num_key_value_heads",
    "ffn": "intermediate_size",
    "vocabulary": "vocab_size",
}
"""The figures of a model's shape, and the configuration's field for each."""

Size = Mapping[str, int | None]
"""`parameters` and the keys of SHAPE; None for a figure that an architecture does not have."""


def size_of(config: Any, parameters: int | None) -> dict[str, int | None]:
    """The size of a model with this configuration and number of parameters."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    found: dict[str, int | None] = {name: getattr(text, field, None) for name, field in SHAPE.items()}
    found["key_value_heads"] = found["key_value_heads"] or found["heads"]
    # GPT-2 has its own name for it, and a rule where the field is None.
    if found["ffn"] is None and hasattr(text, "n_inner"):
        found["ffn"] = text.n_inner or 4 * text.hidden_size
    return {"parameters": parameters, **found}


def shown(sizes: Mapping[str, Size], losses: Mapping[str, float]) -> str:
    """A table of models: the student first, then its teachers, with the student's share of each teacher's size."""
    ours = next(iter(sizes.values()))["parameters"] or 0
    rows: list[Sequence[str]] = [
        ("", "parameters", "the student is", *(name.replace("_", " ") for name in SHAPE), "loss")
    ]
    for number, (name, size) in enumerate(sizes.items()):
        parameters = size["parameters"]
        share = f"{ours / parameters:.1%} of it" if number and parameters else ""
        figures = ("–" if size[key] is None else f"{size[key]:,}" for key in SHAPE)
        loss = f"{losses[name]:.4f}" if name in losses else "–"
        rows.append((name, "–" if parameters is None else f"{parameters:,}", share, *figures, loss))
    return table(rows)


def positions_of(config: Any) -> int | None:
    """The greatest number of tokens in one sample, by a model's configuration; None where there is no limit."""
    found = getattr(config, "max_position_embeddings", None)
    # Some models without a limit say so by -1.
    return found if found is not None and found > 0 else None


def embeddings_of(model: Any) -> int:
    """The number of a model's embeddings; by its configuration where they cannot be seen."""
    module = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    return getattr(module, "num_embeddings", None) or model.config.get_text_config().vocab_size


def check_length(config: Any, sequence_length: int, who: str, key: str) -> None:
    """Refuse sequences that are longer than a model's positions.

    Raises:
        UserError: the sequences are too long. It names the recipe key, the model and both lengths.
    """
    positions = positions_of(config)
    if positions is not None and positions < sequence_length:
        raise UserError(f"`{key}` is {sequence_length}, but {who} has only {positions} positions; lower it")
