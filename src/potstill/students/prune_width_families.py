"""Architectures whose width can be pruned: the meaning of each dimension of each weight.

H channels of the residual stream (`hidden_size`), A query heads in groups that share the keys and values of one of K
heads, D dimensions a head, F neurons of a feed-forward network (`intermediate_size`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import PreTrainedModel

from potstill.errors import UserError

Axis = Literal["hidden", "heads", "key_value_heads", "three_of_all", "three_of_each", "neurons"] | None
"""What a dimension of a weight runs over. In order: H; A·D; K·D; 3·A·D with the queries of all heads first, then all
keys, then all values; 3·A·D with query, key and value of one head after the other; F. None: a dimension that is kept
whole."""


@dataclass(frozen=True)
class Family:
    """The names and dimensions of an architecture's weights."""

    layers: str
    """The name of the list of layers."""
    weights: Mapping[str, tuple[Axis, ...]]
    """The axes of every weight, by its name; for a weight in a layer, by its name within the layer."""
    norms: tuple[str, ...]
    """The norms of the residual stream, named in the same way."""
    heads_into: str
    """The module of a layer that reads the outputs of the heads, [B, T, A·D]."""
    neurons_into: str
    """The module of a layer that reads the neurons' activations, [B, T, F]."""
    epsilon: str | None
    """The configuration's field for the norms' epsilon; None if other norms, which stay unchanged, share it."""
    neurons: str = "intermediate_size"
    """The configuration's field for F."""
    heads_fill_hidden: bool = False
    """H must be A·D, because the configuration has no field for D."""
    multiple_of_heads: bool = False
    """transformers requires that H is a multiple of A, although no computation depends on it."""


@dataclass(frozen=True)
class Widths:
    """The widths of a model."""

    heads: int
    key_value_heads: int
    head_dim: int
    neurons: int
    hidden: int

    @property
    def group(self) -> int:
        """The number of query heads that share one key-value head."""
        return self.heads // self.key_value_heads


@dataclass
class Place:
    """The layer, the name within the layer, and the axes of a weight."""

    layer: int | None
    name: str
    axes: tuple[Axis, ...] = field(default=())


def _with_bias(name: str, out: Axis, into: Axis) -> dict[str, tuple[Axis, ...]]:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def _transposed(name: str, out: Axis, into: Axis) -> dict[str, tuple[Axis, ...]]:
    """GPT-2's `Conv1D`."""
    return {f"{name}.weight": (into, out), f"{name}.bias": (out,)}


def _norms(*names: str) -> dict[str, tuple[Axis, ...]]:
    return {f"{name}.{part}": ("hidden",) for name in names for part in ("weight", "bias")}


def _llama(epsilon: str | None = "rms_norm_eps", **fields: Any) -> Family:
    norms = ("input_layernorm", "post_attention_layernorm", "model.norm")
    weights: dict[str, tuple[Axis, ...]] = {
        "model.embed_tokens.weight": (None, "hidden"),
        "lm_head.weight": (None, "hidden"),
        "self_attn.q_norm.weight": (None,),
        "self_attn.k_norm.weight": (None,),
        **_norms(*norms),
        **_with_bias("self_attn.q_proj", "heads", "hidden"),
        **_with_bias("self_attn.k_proj", "key_value_heads", "hidden"),
        **_with_bias("self_attn.v_proj", "key_value_heads", "hidden"),
        **_with_bias("self_attn.o_proj", "hidden", "heads"),
        **_with_bias("mlp.gate_proj", "neurons", "hidden"),
        **_with_bias("mlp.up_proj", "neurons", "hidden"),
        **_with_bias("mlp.down_proj", "hidden", "neurons"),
    }
    return Family("model.layers", weights, norms, "self_attn.o_proj", "mlp.down_proj", epsilon, **fields)


_GPT2_NORMS = ("ln_1", "ln_2", "transformer.ln_f")
_GPT2 = Family(
    "transformer.h",
    {
        "transformer.wte.weight": (None, "hidden"),
        "transformer.wpe.weight": (None, "hidden"),
        "lm_head.weight": (None, "hidden"),
        **_norms(*_GPT2_NORMS),
        **_transposed("attn.c_attn", "three_of_all", "hidden"),
        **_transposed("attn.c_proj", "hidden", "heads"),
        **_transposed("mlp.c_fc", "neurons", "hidden"),
        **_transposed("mlp.c_proj", "hidden", "neurons"),
    },
    _GPT2_NORMS,
    heads_into="attn.c_proj",
    neurons_into="mlp.c_proj",
    epsilon="layer_norm_epsilon",
    neurons="n_inner",
    heads_fill_hidden=True,
)
_NEOX_NORMS = ("input_layernorm", "post_attention_layernorm", "gpt_neox.final_layer_norm")
_GPT_NEOX = Family(
    "gpt_neox.layers",
    {
        "gpt_neox.embed_in.weight": (None, "hidden"),
        "lm_head.weight": (None, "hidden"),
        **_norms(*_NEOX_NORMS),
        **_with_bias("attention.query_key_value", "three_of_each", "hidden"),
        **_with_bias("attention.dense", "hidden", "heads"),
        **_with_bias("mlp.dense_h_to_4h", "neurons", "hidden"),
        **_with_bias("mlp.dense_4h_to_h", "hidden", "neurons"),
    },
    _NEOX_NORMS,
    heads_into="attention.dense",
    neurons_into="mlp.dense_4h_to_h",
    epsilon="layer_norm_eps",
    heads_fill_hidden=True,
)
FAMILIES: Mapping[str, Family] = {
    "llama": _llama(multiple_of_heads=True),
    "mistral": _llama(),
    "qwen2": _llama(),
    "qwen3": _llama(epsilon=None),
    "smollm3": _llama(),
    "gpt2": _GPT2,
    "gpt_neox": _GPT_NEOX,
}
"""By the configuration's `model_type`."""


def family_of(model: PreTrainedModel) -> Family:
    """The family of a model.

    Raises:
        UserError: the model's family is unknown, or the model has a weight that its family does not have.
    """
    kind = model.config.model_type
    if kind not in FAMILIES:
        raise UserError(
            f"`student.start: prune_width` knows the weights of {', '.join(FAMILIES)}, and the teacher is a {kind}; "
            "use `prune_layers`"
        )
    family = FAMILIES[kind]
    for name in model.state_dict():
        if place(family, name).name not in family.weights:
            raise UserError(
                f"`student.start: prune_width`: the teacher has {name}, which is not a known weight of a {kind}; use "
                "`prune_layers`"
            )
    return family


def place(family: Family, name: str) -> Place:
    """The layer of a weight, its name within the layer, and its axes (empty for an unknown weight)."""
    layer, inside = None, name
    if name.startswith(f"{family.layers}."):
        number, _, inside = name.removeprefix(f"{family.layers}.").partition(".")
        layer = int(number)
    return Place(layer, inside, family.weights.get(inside, ()))


def widths_of(config: Any) -> Widths:
    """The widths in a configuration of one of the families."""
    heads, hidden = config.num_attention_heads, config.hidden_size
    return Widths(
        heads=heads,
        key_value_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or hidden // heads,
        neurons=getattr(config, FAMILIES[config.model_type].neurons, None) or 4 * hidden,
        hidden=hidden,
    )
