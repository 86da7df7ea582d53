"""A file is what it should be if llama.cpp computes the same from it: each family is opened by the engine itself."""

import pytest
import torch

from families import of
from potstill.errors import UserError
from potstill.export.engines.llama_cpp import LlamaCpp
from potstill.export.gguf.file import end_tokens, head_in_file, write_gguf
from potstill.metrics.held_out_text import SideBySide, outputs_of
from tiny import VOCABULARY, gpt2, gpt_neox, llama, mixture, padded, tokenizer

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
GEMMA = {"head_dim": 8, "tie_word_embeddings": True}
MODELS = {
    "llama": llama,
    "llama, tied head": lambda: llama(tie_word_embeddings=True),
    "llama, padded rows": lambda: padded(llama(), VOCABULARY + 20),
    "llama, biases": lambda: llama(attention_bias=True),
    "llama, heads of a size of their own": lambda: llama(head_dim=16),
    "llama 3": lambda: llama(rope_parameters=LLAMA3),
    "llama, longer rotary embeddings": lambda: llama(
        rope_parameters={"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0}
    ),
    "mistral": of("MistralConfig", sliding_window=None, head_dim=8),
    "qwen2": of("Qwen2Config"),
    "qwen2, tied head": of("Qwen2Config", tie_word_embeddings=True),
    "qwen3": of("Qwen3Config", head_dim=8),
    "gemma": of("GemmaConfig", **GEMMA),
    "gemma2, a short window": of("Gemma2Config", query_pre_attn_scalar=8, sliding_window=8, **GEMMA),
    "gemma3, a short window": of(
        "Gemma3TextConfig",
        query_pre_attn_scalar=8,
        sliding_window=8,
        layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        **GEMMA,
    ),
    "gpt2": gpt2,
    "gpt_neox": gpt_neox,
    "gpt_neox, one after the other": lambda: gpt_neox(use_parallel_residual=False),
}


@pytest.fixture(scope="module")
def ids():
    return torch.randint(2, VOCABULARY, (1, 40), generator=torch.Generator().manual_seed(0))


def kl(model, kind, ids, folder):
    """KL(model ‖ file) by token, the answers of both, and the file's size."""
    file = folder / "model.gguf"
    write_gguf(model, tokenizer(), file, kind, "tiny")
    batch = {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}
    with LlamaCpp(file, head_in_file(model, kind), 64) as engine:
        sides = SideBySide({"student": outputs_of(model)}, (1.0,), "probabilities", {"file": engine.outputs})
        found = sides.read(batch).scores["file"]["forward_kl"]
        written, _ = engine.written(ids[0, :8].tolist(), 8)
    return found.mean(), written, file.stat().st_size


@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_computes_what_transformers_computes(name, ids, tmp_path):
    with torch.no_grad():
        model = MODELS[name]()
        for weight in model.parameters():
            # Biases and norms begin at 0 and 1, and would hide that they are left out.
            weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))
    distance, written, _ = kl(model, "F16", ids, tmp_path)
    assert distance < 1e-4
    whole = torch.tensor([ids[0, :8].tolist() + written])
    chances = model(whole).logits[0, 7:-1].log_softmax(-1)
    # Two tokens of a random model may be equally likely.
    assert (chances.amax(-1) - chances.gather(1, whole[0, 8:, None])[:, 0]).max() < 0.02


def test_fewer_bits_are_smaller_and_further_away(ids, tmp_path):
    model = llama(hidden_size=256, intermediate_size=512, layers=3)
    found = {kind: kl(model, kind, ids, tmp_path) for kind in ("BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")}
    sizes = [size for _, _, size in found.values()]
    assert sizes == sorted(sizes, reverse=True)
    assert found["Q8_0"][0] < found["Q5_K_M"][0] < found["Q4_K_M"][0] < 3


def test_a_family_without_a_converter_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match=r"no converter for 'mixtral' models.*export `merged` or `int8`"):
        write_gguf(mixture(), tokenizer(), tmp_path / "model.gguf", "F16", "tiny")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_fails_half_way_leaves_nothing(tmp_path):
    model = llama()
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = 1e6
    with pytest.raises(UserError, match=r"ffn_up.weight is too large for F16; export `gguf:BF16`"):
        write_gguf(model, tokenizer(), tmp_path / "model.gguf", "F16", "tiny")
    assert list(tmp_path.iterdir()) == []


def test_all_ends_of_a_model_are_its_tokenizers_first():
    model = llama()
    model.generation_config.eos_token_id = [7, 0]
    assert end_tokens(model, tokenizer()) == [0, 7]
