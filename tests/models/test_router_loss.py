"""The router loss of a mixture of experts is the model's own, with the model's coefficient."""

from types import SimpleNamespace

import pytest
import torch
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    JetMoeConfig,
    JetMoeForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from potstill.errors import UserError
from potstill.models.forward import forward_with_layers
from potstill.models.head_extraction import head_of
from potstill.models.router_loss import router_loss
from tiny import VOCABULARY, llama

SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 16}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
SMALL = {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}

MIXTURES = {
    "mixtral": (MixtralForCausalLM, MixtralConfig, {"num_local_experts": 4, **HEADS}),
    "qwen2": (Qwen2MoeForCausalLM, Qwen2MoeConfig, {"num_experts": 4, "num_experts_per_tok": 2, **HEADS, **SMALL}),
    "qwen3": (
        Qwen3MoeForCausalLM,
        Qwen3MoeConfig,
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8, **HEADS},
    ),
    "olmoe": (OlmoeForCausalLM, OlmoeConfig, {"num_experts": 4, "num_experts_per_tok": 2, **HEADS}),
    "gpt-oss": (
        GptOssForCausalLM,
        GptOssConfig,
        {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, **HEADS},
    ),
    "jetmoe": (
        JetMoeForCausalLM,
        JetMoeConfig,
        {"num_local_experts": 4, "num_key_value_heads": 2, "kv_channels": 8, "num_experts_per_tok": 2},
    ),
}


@pytest.mark.parametrize(("kind", "config", "fields"), MIXTURES.values(), ids=MIXTURES)
def test_it_is_what_the_model_adds_to_its_own_loss(kind, config, fields):
    torch.manual_seed(0)
    model = kind(config(**SHAPE, **fields, output_router_logits=True))
    ids, mask = torch.arange(12).view(2, 6), torch.ones(2, 6, dtype=torch.long)
    mask[1, 4:] = 0
    batch = {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}
    outputs = forward_with_layers(model, head_of(model) is not None, batch, ())
    whole = model(**batch).loss
    alone = model(**batch, output_router_logits=False).loss
    assert outputs.router.coefficient > 0
    torch.testing.assert_close(outputs.router.coefficient * outputs.router.loss, whole - alone, rtol=1e-3, atol=1e-6)


def test_a_model_that_is_not_asked_for_it_has_none():
    kind, config, fields = MIXTURES["mixtral"]
    for model in (llama(), kind(config(**SHAPE, **fields))):
        assert router_loss(model, model(input_ids=torch.arange(6)[None])) is None


def test_a_router_loss_without_a_coefficient_is_refused():
    with pytest.raises(UserError, match="LlamaForCausalLM has a router loss without a coefficient"):
        router_loss(llama(), SimpleNamespace(aux_loss=torch.tensor(1.0)))
