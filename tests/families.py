"""Tiny models of many families, for what has to hold for each of them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

from tiny import VOCABULARY, gpt2, gpt_neox, llama, mixture

SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
}


def of(config: str, **fields: Any) -> Callable[[], PreTrainedModel]:
    """Makes a random model of that configuration of transformers, in float32."""

    def make() -> PreTrainedModel:
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(getattr(transformers, config)(**SHAPE | fields)).eval()

    return make


TOGETHER: Mapping[str, Callable[[], PreTrainedModel]] = {
    "llama": llama,
    "llama, tied head": lambda: llama(tie_word_embeddings=True),
    "llama, eager attention": lambda: llama(attn_implementation="eager"),
    "gpt2": gpt2,
    "gpt_neox": gpt_neox,
    "mixture of experts": mixture,
    "qwen2": of("Qwen2Config"),
    "qwen3": of("Qwen3Config", head_dim=8),
    "gemma2, softcap and a long window": of("Gemma2Config", head_dim=8, sliding_window=64),
    "gemma3": of("Gemma3TextConfig", head_dim=8, sliding_window=64),
    "mistral, no window": of("MistralConfig", sliding_window=None),
    "phi3": of("Phi3Config"),
    "opt, learned positions": of("OPTConfig", ffn_dim=64, word_embed_proj_dim=32),
    "falcon, alibi": of("FalconConfig", alibi=True, new_decoder_architecture=False),
}
"""Models that continue rows of unequal length together, up to 64 tokens."""

NOT_TOGETHER: Mapping[str, Callable[[], PreTrainedModel]] = {
    "mistral, a short window": of("MistralConfig", sliding_window=8),
    "gemma2, a short window": of("Gemma2Config", head_dim=8, sliding_window=8),
    "bloom, which takes no positions": of("BloomConfig", n_layer=4, n_head=4),
    "mamba, which has a state": of("MambaConfig", state_size=8),
    "lfm2, with convolutions": of("Lfm2Config", layer_types=["conv", "full_attention", "conv", "full_attention"]),
}
"""Models that do not."""
