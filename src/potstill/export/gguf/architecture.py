"""Architecture: which models llama.cpp computes as transformers does, and the settings that it needs to know of them.

The keys are those of github.com/ggml-org/ggml, docs/gguf.md. What llama.cpp assumes of a family and cannot be told is
checked here, because it would compute another model without a word.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gguf import MODEL_ARCH, GGUFWriter, RopeScalingType

from potstill.errors import UserError

SLIDING = "sliding_attention"


@dataclass(frozen=True)
class Architecture:
    """What llama.cpp assumes of a family of models."""

    arch: MODEL_ARCH
    activation: str
    """The only activation that llama.cpp computes for it, by transformers' name."""
    pairs_halves: bool = True
    """Whether rotary embeddings pair the halves of a head, as transformers does. llama.cpp's Llama pairs neighbours."""
    adds_one_to_norms: bool = False
    """Whether transformers adds 1 to the weights of norms."""
    slides: bool = False
    """Whether some of its layers may see only a window of the last tokens."""


FAMILIES: Mapping[str, Architecture] = {
    "llama": Architecture(MODEL_ARCH.LLAMA, "silu", pairs_halves=False),
    "mistral": Architecture(MODEL_ARCH.LLAMA, "silu", pairs_halves=False),
    "qwen2": Architecture(MODEL_ARCH.QWEN2, "silu"),
    "qwen3": Architecture(MODEL_ARCH.QWEN3, "silu"),
    "gemma": Architecture(MODEL_ARCH.GEMMA, "gelu_pytorch_tanh", adds_one_to_norms=True),
    "gemma2": Architecture(MODEL_ARCH.GEMMA2, "gelu_pytorch_tanh", adds_one_to_norms=True, slides=True),
    "gemma3_text": Architecture(MODEL_ARCH.GEMMA3, "gelu_pytorch_tanh", adds_one_to_norms=True, slides=True),
    "gpt2": Architecture(MODEL_ARCH.GPT2, "gelu_new"),
    "gpt_neox": Architecture(MODEL_ARCH.GPTNEOX, "gelu"),
}
"""By transformers' model type. SmolLM2 is a Llama."""
ALIKE = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu"}
"""Activations that llama.cpp computes by one formula."""
PLAIN_ROPE, LINEAR_ROPE, LLAMA3_ROPE = "default", "linear", "llama3"


def family_of(config: Any) -> Architecture:
    """The family of a model.

    Args:
        config: its configuration, of transformers.

    Raises:
        UserError: llama.cpp does not compute this model; the message says what to export instead.
    """
    found = FAMILIES.get(config.model_type)
    if found is None:
        raise _refusal(f"there is no converter for {config.model_type!r} models, only for {', '.join(FAMILIES)}")
    for what, differs in _DIFFERENCES:
        if differs(config, found):
            raise _refusal(f"llama.cpp does not know {what} of {config.model_type!r} models")
    return found


def _refusal(why: str) -> UserError:
    return UserError(f"`export.to`: {why}; export `merged` or `int8`, which transformers runs")


def add_architecture(writer: GGUFWriter, config: Any) -> None:
    """Write the settings of a model whose family is known."""
    heads = config.num_attention_heads
    rope, kv_heads = _rope(config), getattr(config, "num_key_value_heads", heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", None) or _inner_of_gpt2(config))
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_size(config))
    writer.add_value_length(head_size(config))
    if hasattr(config, "rms_norm_eps"):
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    else:
        writer.add_layer_norm_eps(getattr(config, "layer_norm_eps", None) or config.layer_norm_epsilon)
    if rope:
        writer.add_rope_dimension_count(int(rope.get("partial_rotary_factor", 1.0) * head_size(config)))
        writer.add_rope_freq_base(rope["rope_theta"])
        if rope["rope_type"] == LINEAR_ROPE:
            writer.add_rope_scaling_type(RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(rope["factor"])
    if config.model_type == "gpt_neox":
        writer.add_parallel_residual(config.use_parallel_residual)
    _add_gemma(writer, config)


def _add_gemma(writer: GGUFWriter, config: Any) -> None:
    """The settings that only Gemma has: soft caps, and layers that see a window."""
    if cap := getattr(config, "attn_logit_softcapping", None):
        writer.add_attn_logit_softcapping(cap)
    if cap := getattr(config, "final_logit_softcapping", None):
        writer.add_final_logit_softcapping(cap)
    if FAMILIES[config.model_type].slides and SLIDING in config.layer_types:
        writer.add_sliding_window(config.sliding_window)
        writer.add_sliding_window_pattern(_period(config.layer_types))
        if own := (config.rope_parameters or {}).get(SLIDING):
            writer.add_rope_freq_base_swa(own["rope_theta"])


def head_size(config: Any) -> int:
    """The numbers of a head's query."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def llama3_rope(config: Any) -> Any:
    """The factors [head size / 2] by which Llama 3 slows its rotary frequencies down; None for another model."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = _rope(config)
    if not rope or rope["rope_type"] != LLAMA3_ROPE:
        return None
    import torch

    slowed, _ = ROPE_INIT_FUNCTIONS[LLAMA3_ROPE](config, torch.device("cpu"))
    size = head_size(config)
    plain = 1.0 / rope["rope_theta"] ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
    return plain / slowed


def _rope(config: Any) -> dict[str, Any] | None:
    """The rotary embeddings of a model, or of its layers that see everything."""
    given = getattr(config, "rope_parameters", None)
    return given and given.get("full_attention", given)


def _inner_of_gpt2(config: Any) -> int:
    return config.n_inner or 4 * config.hidden_size


def _period(layer_types: Sequence[str]) -> int | None:
    """The period of layers that see everything: each last one of a period does. None if there is no such period."""
    count = len(layer_types)
    for period in range(1, count + 2):
        if all((kind == SLIDING) == (place % period < period - 1) for place, kind in enumerate(layer_types)):
            return period
    return None


def _other_activation(config: Any, family: Architecture) -> bool:
    names = ("hidden_activation", "hidden_act", "activation_function")
    given = next(name for key in names if (name := getattr(config, key, None)) is not None)
    return ALIKE.get(given, given) != ALIKE.get(family.activation, family.activation)


def _other_rope(config: Any, family: Architecture) -> bool:
    every = config.rope_parameters if getattr(config, "rope_parameters", None) else {}
    own, known = every.get(SLIDING), (PLAIN_ROPE, LINEAR_ROPE)
    if own and own["rope_type"] != PLAIN_ROPE:
        return True
    rope = _rope(config)
    return rope is not None and rope["rope_type"] not in (*known, *([] if family.pairs_halves else [LLAMA3_ROPE]))


def _other_window(config: Any, family: Architecture) -> bool:
    kinds, window = getattr(config, "layer_types", None) or (), getattr(config, "sliding_window", None)
    if family.slides:
        return _period(kinds) is None
    slides = SLIDING in kinds or (config.model_type == "mistral" and window is not None)
    return slides and window < config.max_position_embeddings


def _other_scale(config: Any, family: Architecture) -> bool:
    given = getattr(config, "query_pre_attn_scalar", None)
    return given not in (None, head_size(config)) or not getattr(config, "scale_attn_weights", True)


_DIFFERENCES: Sequence[tuple[str, Callable[[Any, Architecture], bool]]] = (
    ("the activation", _other_activation),
    ("the scaling of rotary embeddings", _other_rope),
    ("the order of layers with a sliding window", _other_window),
    ("the scale of attention", _other_scale),
    ("attention scaled by the layer", lambda config, _: getattr(config, "scale_attn_by_inverse_layer_idx", False)),
    ("attention in both directions", lambda config, _: bool(getattr(config, "use_bidirectional_attention", False))),
)
