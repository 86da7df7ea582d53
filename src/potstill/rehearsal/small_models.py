"""Small models: a published configuration with few layers and narrow ones, in the same architecture and head layout."""

import shutil
from collections.abc import Mapping, Sequence
from math import gcd
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, GenerationConfig, set_seed

from potstill.files.atomic import write_json
from potstill.rehearsal.tokenizers import save_tokenizer

MOST_LAYERS = 4
"""The layers of the deepest model of a recipe; the others have their share of it, and at least 2."""
HEAD_DIMENSION = 8
"""The channels of a head: enough for the rotary embedding of a quarter of them."""
MULTIPLE = 32
"""Widths are multiples of it where weights are quantised in groups of 32."""
FEED_FORWARD = ("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size", "ffn_dim")
TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "vocab.*",
    "merges.txt",
    "chat_template*",
    "added_tokens.json",
)
SHARDS = "200KB"
"""Weights are split into files of this size, so that there is an index, as large models have it."""


class Scale:
    """How all models of a recipe are cut, so that their heads and layers keep their ratios."""

    def __init__(self, configs: Sequence[Mapping[str, Any]]) -> None:
        whole = [_whole(config) for config in configs]
        heads = [_heads(config) for config in whole]
        layers = [config.num_hidden_layers for config in whole]
        common = gcd(*(one for pair in heads for one in pair)) if heads else 1
        least = min((pair[1] for pair in heads), default=1)
        # Two heads of keys, where there are several: one alone would be another kind of attention.
        self.heads = max(by for by in range(1, common + 1) if common % by == 0 and (least // by >= 2 or by == 1))
        self.layers = min(1.0, MOST_LAYERS / max(layers, default=MOST_LAYERS))

    def cut(self, config: Mapping[str, Any], *, in_groups: bool = False) -> dict[str, Any]:
        """The configuration of the small model: the same fields, with smaller sizes.

        Args:
            config: the fields of a transformers configuration, with `model_type`.
            in_groups: whether the weights are quantised in groups.
        """
        whole = _whole(config)
        heads, key_value_heads = _heads(whole)
        layers = max(min(2, whole.num_hidden_layers), round(whole.num_hidden_layers * self.layers))
        wide = HEAD_DIMENSION
        while in_groups and heads // self.heads * wide % MULTIPLE:
            wide *= 2
        channels = getattr(whole, "head_dim", None) or whole.hidden_size // heads
        narrower = heads // self.heads * wide / (heads * channels)
        made = dict(config)
        _set(made, whole, "num_hidden_layers", layers)
        _set(made, whole, "num_attention_heads", heads // self.heads)
        _set(made, whole, "hidden_size", max(2 * HEAD_DIMENSION, round(whole.hidden_size * narrower / 8) * 8))
        if getattr(whole, "num_key_value_heads", None) is not None and "num_key_value_heads" in made:
            made["num_key_value_heads"] = key_value_heads // self.heads
        if "head_dim" in made or channels * heads != whole.hidden_size:
            made["head_dim"] = wide
        for name in (*FEED_FORWARD, "n_inner"):
            if isinstance(size := made.get(name), int):
                made[name] = max(MULTIPLE, round(size * narrower / MULTIPLE) * MULTIPLE)
        if isinstance(kinds := made.get("layer_types"), list):
            made["layer_types"] = kinds[:layers]
        return made


def parameters(config: Mapping[str, Any], vocabulary: int | None = None) -> int:
    """The number of weights of a model, of which none is made."""
    fields = dict(config) if vocabulary is None else {"vocab_size": vocabulary, **config}
    with torch.device("meta"):
        return int(AutoModelForCausalLM.from_config(_whole(fields)).num_parameters())


def save_small_model(config: Mapping[str, Any], tokenizer: str | Path, folder: Path, seed: int) -> None:
    """Write a model's repository as the hub has it: configuration, weights in several files, tokenizer.

    Args:
        config: the fields of its config.json.
        tokenizer: the kind of its tokenizer, or a folder with its files.
        folder: the repository's folder.
        seed: the seed of the weights.
    """
    folder.mkdir(parents=True)
    set_seed(seed)
    model = AutoModelForCausalLM.from_config(_whole(config))
    stored = getattr(torch, str(config.get("torch_dtype") or config.get("dtype") or "float32"))
    model.to(stored).save_pretrained(folder, max_shard_size=SHARDS)
    write_json(folder / "config.json", dict(config))
    ids = {name: config.get(name) for name in ("bos_token_id", "eos_token_id")}
    GenerationConfig(**ids).save_pretrained(folder)
    if isinstance(tokenizer, str):
        save_tokenizer(tokenizer, folder)
    else:
        for file in (one for pattern in TOKENIZER_FILES for one in tokenizer.glob(pattern)):
            shutil.copy(file, folder)


def _whole(config: Mapping[str, Any]) -> Any:
    fields = {name: value for name, value in config.items() if name not in ("model_type", "architectures")}
    return AutoConfig.for_model(config["model_type"], **fields)


def _heads(whole: Any) -> tuple[int, int]:
    heads = whole.num_attention_heads
    return heads, getattr(whole, "num_key_value_heads", None) or heads


def _set(made: dict[str, Any], whole: Any, name: str, value: int) -> None:
    """Set a field under the name that the configuration has for it."""
    own = CONFIG_MAPPING[whole.model_type].attribute_map.get(name, name)
    made[name if name in made else own] = value
