"""Passes that are counted without numbers, against the same passes with numbers."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from potstill.models.head_extraction import hidden_states
from potstill.planning.trace import BatchShape, Learning, config_of, model_on_meta, reading, training
from tiny import gpt2, gpt_neox, llama, mixture

BATCH = BatchShape(2, 16)
FAMILIES = {"llama": llama, "gpt2": gpt2, "gpt_neox": gpt_neox}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_products_are_those_of_the_real_pass(family):
    model = family()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        hidden_states(model, input_ids=torch.zeros(2, 16, dtype=torch.long), use_cache=False)
    traced = reading(model.config, BATCH, "fp32").operations
    # torch counts no attention on a CPU. Half of T × T is seen, in two products a layer.
    text = model.config
    attention = 2 * text.num_hidden_layers * 2 * 2 * 16 * 16 * text.hidden_size / 2
    assert traced.products == counter.get_total_flops()
    assert traced.attention == attention
    assert traced.attention_backward == 0
    learned = training(model.config, BATCH, Learning()).operations
    # GPT-2 learns with dropout in its attention, which torch computes by plain products on a CPU.
    seen = 0 if family is gpt2 else attention
    assert learned.attention == seen
    assert learned.attention_backward == 2.5 * seen, "five products in place of two"


def test_a_backward_costs_two_forwards_and_an_adapter_s_one():
    config = llama(hidden_size=64, intermediate_size=128).config
    forward = reading(config, BATCH, "fp32").operations.products
    assert training(config, BATCH, Learning()).operations.products == pytest.approx(3 * forward, rel=0.05)
    adapter = Learning(adapter='{"r": 1, "target_modules": ["q_proj"]}')
    assert training(config, BATCH, adapter).operations.products == pytest.approx(2 * forward, rel=0.08)
    again = training(config, BATCH, Learning(checkpointing=True)).operations
    assert again.products == pytest.approx(4 * forward, rel=0.08)
    assert again.attention == 2 * reading(config, BATCH, "fp32").operations.attention


def test_memory_depends_on_what_a_training_keeps():
    config, batch = llama(layers=8).config, BatchShape(8, 64)
    peak = training(config, batch, Learning()).peak
    assert training(config, batch, Learning(checkpointing=True)).peak < 0.6 * peak
    assert training(config, BatchShape(16, 64), Learning()).peak == pytest.approx(2 * peak, rel=0.15)
    assert training(config, batch, Learning(beside=10 * peak)).peak > 10 * peak
    gradients = 4 * sum(one.numel() for one in llama(layers=8).parameters())
    more = training(config, batch, Learning(accumulates=True)).peak - peak
    assert 0 < more <= gradients
    adapter = Learning(adapter='{"r": 1, "target_modules": ["q_proj"]}')
    assert training(config, batch, adapter).peak < peak
    assert reading(config, batch, "bf16").peak < reading(config, batch, "fp32").peak < 0.3 * peak


def test_a_mixture_of_experts_is_traced_where_torch_can_do_it_and_else_left_to_an_estimate():
    assert reading(mixture().config, BATCH, "bf16").operations.products > 0
    assert reading(config_of({"model_type": "mamba", "num_hidden_layers": 0}), BATCH, "fp32") is not None


def test_a_model_of_any_size_is_counted_without_its_weights():
    fields = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 16384, "intermediate_size": 53248}
    config = config_of(fields | {"num_attention_heads": 128, "num_key_value_heads": 8, "vocab_size": 128256})
    model = model_on_meta(config)
    assert sum(one.numel() for one in model.parameters()) > 10e9
    assert reading(config, BatchShape(1, 8), "bf16").operations.products > 1e10
