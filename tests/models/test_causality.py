"""A causal language model is one by what it does, and whatever else is refused by what it does."""

from importlib.util import find_spec

import pytest
import torch
from torch import nn
from transformers import (
    BertForMaskedLM,
    BertForSequenceClassification,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    LlamaModel,
    MambaConfig,
    MambaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
    XLNetConfig,
    XLNetLMHeadModel,
)

from potstill.errors import UserError
from potstill.models.causality import check_causal
from tiny import VOCABULARY, bert, gpt2, gpt_neox, llama, save_model

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}


def of(kind, config, **fields):
    torch.manual_seed(0)
    return kind(config(vocab_size=VOCABULARY, **{**SHAPE, **fields}))


CAUSAL = {
    "llama": llama,
    "gpt2": gpt2,
    "neox": gpt_neox,
    "decoding bert": lambda: bert(is_decoder=True),
    "mixtral": lambda: of(MixtralForCausalLM, MixtralConfig, num_key_value_heads=2, num_local_experts=4),
    "sliding window": lambda: of(Gemma3ForCausalLM, Gemma3TextConfig, sliding_window=2, **GROUPED),
    "mamba": lambda: MambaForCausalLM(
        MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4)
    ),
    "two positions": lambda: llama(max_position_embeddings=2),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("model", CAUSAL.values(), ids=CAUSAL)
def test_a_causal_model_is_taken(model, dtype):
    check_causal(model().to(dtype), "`model`")


OTHERS = {
    "bert": (bert, "BertLMHeadModel looks ahead"),
    "masked bert": (lambda: bert(kind=BertForMaskedLM), "BertForMaskedLM looks ahead"),
    "classifier": (lambda: bert(kind=BertForSequenceClassification), "gives logits of shape"),
    "llama that classifies": (lambda: LlamaForSequenceClassification(llama().config), "gives logits of shape"),
    "llama that classifies tokens": (lambda: LlamaForTokenClassification(llama().config), "gives logits of shape"),
    "base model": (lambda: LlamaModel(llama().config), "gives no logits"),
    "encoder and decoder": (
        lambda: T5ForConditionalGeneration(
            T5Config(vocab_size=VOCABULARY, d_model=32, d_ff=64, num_layers=1, num_heads=4, d_kv=8)
        ),
        "T5ForConditionalGeneration is an encoder-decoder",
    ),
    "pictures": (lambda: ViTModel(ViTConfig(image_size=8, patch_size=4, **SHAPE)), "reads no tokens"),
    "permutations": (
        lambda: XLNetLMHeadModel(XLNetConfig(vocab_size=VOCABULARY, d_model=32, n_layer=1, n_head=4, d_inner=64)),
        "XLNetLMHeadModel looks ahead",
    ),
}


@pytest.mark.parametrize(("model", "reason"), OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_no_causal_language_model_is_refused_by_name(model, reason, dtype):
    with pytest.raises(UserError, match=r"`teachers.big.model` is not a causal language model: the ") as told:
        check_causal(model().to(dtype), "`teachers.big.model`")
    assert reason in str(told.value)
    assert "\n" not in str(told.value)


def test_weights_that_are_not_numbers_are_refused():
    model = llama()
    nn.init.constant_(model.lm_head.weight, float("nan"))
    with pytest.raises(UserError, match="gives logits that are not numbers"):
        check_causal(model, "`model`")


def test_the_model_and_the_random_state_stay_as_they_were():
    model = gpt2().train()
    model.transformer.h[0].eval()
    modes, state = [module.training for module in model.modules()], torch.get_rng_state()
    check_causal(model, "`model`")
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_eight_bits_with_outliers_are_causal_and_keep_their_threshold(tmp_path):
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    folder = save_model(llama(hidden_size=64, intermediate_size=128), tmp_path / "model")
    how = {"quantization_config": BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.5)}
    model = AutoModelForCausalLM.from_pretrained(folder, **how)
    check_causal(model, "`model`")
    assert model.model.layers[0].mlp.up_proj.state.threshold == 0.5
