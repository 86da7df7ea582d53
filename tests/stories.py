"""A real language model that is small enough for a test: stories260K, of 260K parameters, in llama2.c's own layout."""

import struct
from functools import cache
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SHARED = Path(__file__).parents[2] / "shared" / "data"
FOLDER = SHARED / "stories260k"


@cache
def model() -> LlamaForCausalLM:
    raw = (FOLDER / "stories260K.bin").read_bytes()
    hidden, inner, layers, heads, kv_heads, vocabulary, positions = struct.unpack("7i", raw[:28])
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=positions,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    rest = torch.from_numpy(np.frombuffer(raw, np.float32, offset=28).copy())
    width = hidden // heads * kv_heads

    def take(*shape: int) -> torch.Tensor:
        nonlocal rest
        size = int(np.prod(shape))
        taken, rest = rest[:size].view(shape), rest[size:]
        return taken

    def halves(rows: torch.Tensor, count: int) -> torch.Tensor:
        """Rotary pairs from neighbouring rows, as in llama2.c, to the two halves of a head, as in transformers."""
        return rows.view(count, -1, 2, hidden).transpose(1, 2).reshape(rows.shape)

    state = {"model.embed_tokens.weight": take(vocabulary, hidden)}
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    stacks = {
        "input_layernorm": take(layers, hidden),
        "self_attn.q_proj": take(layers, hidden, hidden),
        "self_attn.k_proj": take(layers, width, hidden),
        "self_attn.v_proj": take(layers, width, hidden),
        "self_attn.o_proj": take(layers, hidden, hidden),
        "post_attention_layernorm": take(layers, hidden),
        "mlp.gate_proj": take(layers, inner, hidden),
        "mlp.down_proj": take(layers, hidden, inner),
        "mlp.up_proj": take(layers, inner, hidden),
    }
    turned = {"self_attn.q_proj": heads, "self_attn.k_proj": kv_heads}
    for name, stack in stacks.items():
        for layer, weight in enumerate(stack):
            right = halves(weight, turned[name]) if name in turned else weight
            state[f"model.layers.{layer}.{name}.weight"] = right
    state["model.norm.weight"] = take(hidden)
    found = LlamaForCausalLM(config).eval()
    found.load_state_dict(state)
    return found


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    raw = (FOLDER / "tok512.bin").read_bytes()
    pieces, at = [], 4
    while at < len(raw):
        _, size = struct.unpack_from("fi", raw, at)
        pieces.append(raw[at + 8 : at + 8 + size].decode().replace(" ", "▁"))
        at += 8 + size
    pieces[:3] = ["<unk>", "<s>", "</s>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    # Sentencepiece merges what makes the best piece; pieces stand in the order of their scores.
    merges = [
        (piece[:cut], piece[cut:])
        for piece in pieces[259:]
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    bpe = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
