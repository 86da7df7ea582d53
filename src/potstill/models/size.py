"""Size: how large models are, beside each other."""

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
"""What a model's shape is, and the configuration's field for it."""

Size = Mapping[str, int | None]
"""`parameters` and the keys of SHAPE; None for what an architecture does not have."""


def size_of(config: Any, parameters: int) -> dict[str, int | None]:
    """A model's size, by its configuration."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    found: dict[str, int | None] = {name: getattr(text, field, None) for name, field in SHAPE.items()}
    found["key_value_heads"] = found["key_value_heads"] or found["heads"]
    # GPT-2 has a name of its own for it, and a rule where it says nothing.
    if found["ffn"] is None and hasattr(text, "n_inner"):
        found["ffn"] = text.n_inner or 4 * text.hidden_size
    return {"parameters": parameters, **found}


def shown(sizes: Mapping[str, Size], losses: Mapping[str, float]) -> str:
    """A table of models: the student first, then its teachers, of each of which it says what share the student is."""
    ours = next(iter(sizes.values()))["parameters"] or 0
    rows: list[Sequence[str]] = [
        ("", "parameters", "the student is", *(name.replace("_", " ") for name in SHAPE), "loss")
    ]
    for number, (name, size) in enumerate(sizes.items()):
        parameters = size["parameters"] or 0
        share = f"{ours / parameters:.1%} of it" if number and parameters else ""
        figures = ("–" if size[key] is None else f"{size[key]:,}" for key in SHAPE)
        loss = f"{losses[name]:.4f}" if name in losses else "–"
        rows.append((name, f"{parameters:,}", share, *figures, loss))
    return table(rows)


def check_length(config: Any, sequence_length: int, who: str, key: str) -> None:
    """Refuse sequences that are longer than a model's positions.

    Raises:
        UserError: naming the recipe key, the model and both lengths.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and sequence_length > positions:
        raise UserError(f"`{key}` is {sequence_length}, but {who} has only {positions} positions; lower it")
