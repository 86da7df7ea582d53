"""A pruned student is its teacher without some layers, and otherwise the same."""

import re
from itertools import pairwise

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

import tiny
from potstill.errors import UserError
from potstill.students.prune_layers import chosen_layers, prune_layers

SHAPE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
MIXTURE = {"num_experts_per_tok": 2, "moe_intermediate_size": 8}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 8}
GROUPS = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_key_value_heads": 2}
FAMILIES = {
    "llama": {"tie_word_embeddings": True},
    "gpt2": {"n_positions": 64},
    "qwen3": {"head_dim": 8, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 3},
    "gemma3_text": {"head_dim": 8, "sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"] * 3},
    "smollm3": {"no_rope_layers": [1, 1, 0, 1, 0, 1]},
    "qwen3_moe": {"head_dim": 8, "num_experts": 6, "mlp_only_layers": [1, 3, 5], **MIXTURE},
    "deepseek_v3": {"first_k_dense_replace": 2, **LATENT, **GROUPS, **MIXTURE},
}
"""One model for each way in which a configuration describes its layers; Qwen's has as many experts as layers."""
LAYERS = {"llama": "model.layers", "gpt2": "transformer.h"}


def teacher(family):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**SHAPE, **FAMILIES[family]})
    return AutoModelForCausalLM.from_config(config).eval()


def skip(module, arguments, keywords, output):
    """A hook that makes a layer do nothing."""
    states = arguments[0] if arguments else keywords["hidden_states"]
    return (states, *output[1:]) if isinstance(output, tuple) else states


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("keep", [[0, 3, 5], [1, 2], [4]])
def test_the_student_computes_what_its_teacher_does_with_layers_skipped(family, keep):
    whole = teacher(family)
    student = prune_layers(whole, keep).eval()
    ids = torch.randint(3, 40, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = whole(ids, use_cache=False).logits
        for number, layer in enumerate(whole.get_submodule(LAYERS.get(family, "model.layers"))):
            if number not in keep:
                layer.register_forward_hook(skip, with_kwargs=True)
        expected, found = whole(ids, use_cache=False).logits, student(ids, use_cache=False).logits
    assert torch.equal(found, expected)
    assert not torch.allclose(expected, before), "the layers left out must have mattered"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_is_the_teachers_own_bit_for_bit_and_a_copy(family):
    whole, keep = teacher(family), [1, 4]
    student = prune_layers(whole, keep)
    prefix = LAYERS.get(family, "model.layers")
    theirs = whole.state_dict()
    for name, tensor in student.state_dict().items():
        match = re.match(rf"{prefix}\.(\d+)\.(.*)", name)
        source = f"{prefix}.{keep[int(match[1])]}.{match[2]}" if match else name
        assert torch.equal(tensor, theirs[source]), name
        assert tensor.data_ptr() != theirs[source].data_ptr(), f"training the student would change the teacher: {name}"


@pytest.mark.parametrize(
    ("family", "field", "before", "after"),
    [
        ("qwen3", "layer_types", "fffsss", "fss"),
        ("gemma3_text", "layer_types", "sfsfsf", "ssf"),
        ("smollm3", "no_rope_layers", [1, 1, 0, 1, 0, 1], [1, 0, 1]),
        ("qwen3_moe", "mlp_only_layers", [1, 3, 5], [2]),
        ("deepseek_v3", "first_k_dense_replace", 2, 1),
    ],
)
def test_what_a_configuration_says_of_each_layer_moves_with_the_layers(family, field, before, after):
    def told(model):
        value = getattr(model.config, field)
        return "".join(kind[0] for kind in value) if field == "layer_types" else value

    whole = teacher(family)
    student = prune_layers(whole, [0, 4, 5])
    assert (told(whole), told(student)) == (before, after)
    assert student.config.num_hidden_layers == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_survives_the_disk(family, tmp_path):
    student = prune_layers(teacher(family), [0, 3, 5]).eval()
    student.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.arange(3, 15)[None]
    with torch.no_grad():
        assert torch.equal(again(ids).logits, student(ids).logits)
    assert again.config.num_hidden_layers == 3


def test_a_student_generates_with_a_cache_and_stops_where_its_teacher_would():
    whole = teacher("qwen3")
    whole.generation_config.eos_token_id = [2, 7]
    student = prune_layers(whole, [0, 2, 5]).eval()
    assert student.generation_config.eos_token_id == [2, 7]
    ids = torch.arange(3, 9)[None]
    cached = student.generate(ids, max_new_tokens=8, do_sample=False)
    assert torch.equal(student.generate(ids, max_new_tokens=8, do_sample=False, use_cache=False), cached)


def test_the_teachers_number_format_is_the_students():
    assert prune_layers(teacher("llama").to(torch.bfloat16), [0]).dtype == torch.bfloat16


def test_a_model_whose_layers_are_no_list_is_refused():
    class Flat(tiny.LlamaForCausalLM):
        def named_modules(self, *_, **__):
            return iter(())

    with pytest.raises(UserError, match="Flat has no list of its 4 layers, so none can be left out"):
        prune_layers(Flat(tiny.llama().config), [0])


def test_a_model_whose_layers_know_their_number_is_refused():
    with pytest.raises(
        UserError, match="with `scale_attn_by_inverse_layer_idx` a layer's output depends on its number"
    ):
        prune_layers(tiny.gpt2(0, 4, scale_attn_by_inverse_layer_idx=True), [0, 2])


def test_a_model_whose_layers_are_not_alike_is_refused():
    config = transformers.GPTNeoConfig(
        vocab_size=40, hidden_size=16, num_layers=4, num_heads=2, attention_types=[[["global", "local"], 2]]
    )
    with pytest.raises(UserError, match=r"`student\.start`: potstill cannot leave layers out of a GPTNeoForCausalLM"):
        prune_layers(AutoModelForCausalLM.from_config(config), [0, 3])


@pytest.mark.parametrize(
    ("total", "layers", "rule", "kept"),
    [
        (30, 15, "spread", [0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29]),
        (30, 15, "ends", [0, 1, 2, 3, 4, 5, 8, 11, 14, 17, 19, 22, 25, 28, 29]),
        (12, 6, "spread", [0, 2, 4, 7, 9, 11]),
        (12, 6, "ends", [0, 1, 4, 7, 10, 11]),
        (12, 4, "ends", [0, 4, 7, 11]),
        (12, 2, "spread", [0, 11]),
        (12, 1, "spread", [11]),
        (12, 1, "ends", [11]),
        (1, 1, "ends", [0]),
        (12, [0, 5, 11], "ends", [0, 5, 11]),
    ],
)
def test_layers_are_chosen_by_the_rule(total, layers, rule, kept):
    assert chosen_layers(total, layers, rule) == kept


@given(st.integers(1, 100), st.integers(1, 100), st.sampled_from(["spread", "ends"]))
def test_a_rule_keeps_what_it_says_it_keeps(total, layers, rule):
    layers = min(total, layers)
    kept = chosen_layers(total, layers, rule)
    assert kept == sorted(set(kept)), "each once, in order"
    assert len(kept) == layers
    assert kept[-1] == total - 1
    distances = [after - before for before, after in pairwise(kept)]
    if layers > 1:
        assert kept[0] == 0
    if rule == "ends" and layers >= 5:
        front = layers * 2 // 5
        assert kept[:front] == list(range(front))
        assert kept[-2:] == [total - 2, total - 1]
        distances = distances[front - 1 : -1]
    assert max(distances, default=1) - min(distances, default=1) <= 1, "at even distances"


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        (0, "`student.layers` is 0, but the teacher has 6 layers"),
        (7, "`student.layers` is 7, but the teacher has 6 layers"),
        ([0, 6], "`student.layers` names 6, but the teacher's layers are 0 to 5"),
        ([-1], "`student.layers` names -1, but the teacher's layers are 0 to 5"),
        ([2, 1], "`student.layers` must name each layer once, in rising order"),
        ([1, 1], "`student.layers` must name each layer once, in rising order"),
        ([], "`student.layers` must name each layer once, in rising order"),
    ],
)
def test_layers_that_there_are_not_are_refused(layers, sentence):
    with pytest.raises(UserError) as told:
        chosen_layers(6, layers, "spread")
    assert str(told.value) == sentence
