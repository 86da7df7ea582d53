"""Merged weights are those that peft's own merging gives, and the model with the adapter stays as it was."""

import copy

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model

from potstill.models.merged_weights import merged_weights, plain_model, why_not_merged
from tiny import gpt2, llama

ADAPTERS = {
    "one of two linears": (llama, {"target_modules": ["q_proj", "down_proj"]}),
    "rank-stabilised": (llama, {"target_modules": ["v_proj"], "use_rslora": True, "r": 4}),
    "transposed": (gpt2, {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
    "embeddings and a whole head": (llama, {"target_modules": ["embed_tokens"], "modules_to_save": ["lm_head"]}),
}


def adapted(make, **how):
    torch.manual_seed(0)
    return get_peft_model(make(), LoraConfig(init_lora_weights=False, **how))


@pytest.mark.parametrize("name", ADAPTERS)
def test_they_are_those_of_pefts_own_merging(name):
    make, how = ADAPTERS[name]
    model = adapted(make, **how)
    for key, weight in model.named_parameters():
        if "modules_to_save" in key:
            weight.data += 1
    before = {key: weight.clone() for key, weight in model.state_dict().items()}
    assert why_not_merged(model) is None
    found = dict(merged_weights(model))
    after = model.state_dict()
    assert all(torch.equal(weight, after[key]) for key, weight in before.items())
    expected = copy.deepcopy(model).merge_and_unload().state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(weight, expected[key]) for key, weight in found.items())
    assert any(not torch.equal(weight, found[key]) for key, weight in make().state_dict().items())
    assert type(plain_model(model)) is type(make())


def test_a_plain_model_gives_its_own_weights():
    model = llama()
    found = dict(merged_weights(model))
    assert why_not_merged(model) is None
    assert found.keys() == model.state_dict().keys()
    assert found["lm_head.weight"].data_ptr() == model.lm_head.weight.data_ptr()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (LoraConfig(target_modules=["q_proj"], use_dora=True), "a variant"),
        (LoraConfig(target_modules=["q_proj"], trainable_token_indices=[3]), "some tokens"),
        (IA3Config(target_modules=["v_proj"], feedforward_modules=[]), "not LoRA"),
    ],
    ids=["dora", "tokens", "ia3"],
)
def test_what_is_not_one_product_of_two_matrices_is_not_merged(config, reason):
    assert reason in why_not_merged(get_peft_model(llama(), config))
