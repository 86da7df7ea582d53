"""A narrower student is its teacher without some heads, neurons and channels; exactly so if those were dead."""

from itertools import product

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

import tiny
from potstill.errors import UserError
from potstill.students.prune_width import prune_width, pruned_widths
from potstill.students.prune_width_families import FAMILIES, Widths, place, widths_of

GROUPED = {
    "hidden_size": 32,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "rms_norm_eps": 0.3,
}
MODELS = {
    "llama": GROUPED | {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    "mistral": GROUPED | {"sliding_window": 3},
    "qwen2": {key: value for key, value in GROUPED.items() if key != "head_dim"},
    "qwen3": GROUPED | {"rms_norm_eps": 1e-6},
    "smollm3": GROUPED,
    "gpt2": {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64, "layer_norm_epsilon": 0.3},
    "gpt_neox": {
        "hidden_size": 32,
        "intermediate_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "layer_norm_eps": 0.3,
    },
    "gpt_neox serial": {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "layer_norm_eps": 0.3}
    | {"intermediate_size": 20, "use_parallel_residual": False},
}
"""One model of each family. Epsilons are large if they can be changed, so that a forgotten one shows."""
TOKENS = {"vocab_size": 40, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.3}


def teacher(name):
    torch.manual_seed(0)
    config = AutoConfig.for_model(name.partition(" ")[0], **TOKENS, **MODELS[name])
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for key, weight in model.state_dict().items():
            # A new model's biases are 0 and its norms 1, which would hide errors in their pruning.
            if key.endswith("bias") or "norm" in key or "ln_" in key:
                weight.add_(torch.randn_like(weight) * 0.3)
    return model


def batch(seed=1, rows=3, length=12):
    ids = torch.randint(3, 40, (rows, length), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def logits(model, ids=None):
    with torch.no_grad():
        return model(batch(seed=2)["input_ids"] if ids is None else ids, use_cache=False).logits


def wanted(model, **sizes):
    keys = ("heads", "key_value_heads", "intermediate_size", "hidden_size")
    return pruned_widths(model.config, *(sizes.get(key) for key in keys))


def weights(model):
    """Each weight with its axes; a fused projection is split into its parts."""
    family = FAMILIES[model.config.model_type]
    for name, tensor in model.state_dict().items():
        yield name, tensor, place(family, name).axes


def silence(model, *, heads=(), neurons=(), channels=()):
    """Make these parts of a model dead: their inputs and outputs are 0."""
    shape = widths_of(model.config)
    size, count = shape.head_dim, shape.heads
    groups = sorted({head // shape.group for head in heads})
    of = {
        "heads": [head * size + at for head in heads for at in range(size)],
        "key_value_heads": [group * size + at for group in groups for at in range(size)],
        "three_of_each": [head * 3 * size + at for head in heads for at in range(3 * size)],
        "three_of_all": [p * count * size + h * size + at for p, h, at in product(range(3), heads, range(size))],
        "neurons": list(neurons),
        "hidden": list(channels),
    }
    norms = FAMILIES[model.config.model_type].norms
    centred = any(isinstance(module, torch.nn.LayerNorm) for module in model.modules())
    living = [channel for channel in range(shape.hidden) if channel not in channels]
    with torch.no_grad():
        for name, tensor, axes in weights(model):
            norm = place(FAMILIES[model.config.model_type], name.rpartition(".")[0]).name in norms
            for dimension, axis in enumerate(axes):
                if of.get(axis):
                    tensor.index_fill_(dimension, torch.tensor(of[axis]), 0.0)
                if axis == "hidden" and channels and centred and not norm and writes(name, dimension):
                    # Outputs to the residual stream get a mean of 0, so that for a LayerNorm a channel of 0 equals the
                    # mean.
                    part = tensor.index_select(dimension, torch.tensor(living))
                    tensor.index_copy_(dimension, torch.tensor(living), part - part.mean(dimension, keepdim=True))
    return model


def writes(name, dimension):
    """Whether this dimension of a weight writes to the residual stream."""
    out = ("attn.c_proj", "mlp.c_proj", "attention.dense", "dense_4h_to_h")
    if name.endswith(("wte.weight", "wpe.weight", "embed_in.weight")):
        return True
    if not any(part in name for part in out):
        return False
    return name.endswith("bias") or dimension == (1 if "c_proj" in name else 0)


@pytest.mark.parametrize("name", MODELS)
def test_without_heads_and_neurons_that_do_nothing_a_model_says_the_same(name):
    # If the heads fill the hidden size, the next test prunes them.
    heads = [] if FAMILIES[name.partition(" ")[0]].heads_fill_hidden else [0, 1]
    model = silence(teacher(name), heads=heads, neurons=[0, 3, 19])
    before = widths_of(model.config)
    sizes = {"heads": before.heads - len(heads), "intermediate_size": before.neurons - 3}
    student, kept = prune_width(model, wanted(model, **sizes), [batch()])
    torch.testing.assert_close(logits(student.eval()), logits(model), rtol=0, atol=1e-5)
    assert kept.heads == [[head for head in range(4) if head not in heads]] * 2
    assert kept.key_value_heads == ([[1]] * 2 if heads else [[0, 1, 2, 3]] * 2)
    assert kept.neurons == [[n for n in range(before.neurons) if n not in (0, 3, 19)]] * 2
    assert kept.shares == pytest.approx(dict.fromkeys(kept.shares, 1.0))
    assert widths_of(student.config).heads == sizes["heads"]
    assert widths_of(student.config).key_value_heads == len(kept.key_value_heads[0])


def unread(model, kept):
    """The model with the outputs of all heads and neurons ignored that are not kept."""
    shape, family = widths_of(model.config), FAMILIES[model.config.model_type]
    with torch.no_grad():
        for number, layer in enumerate(model.get_submodule(family.layers)):
            heads = [head * shape.head_dim + at for head in kept.heads[number] for at in range(shape.head_dim)]
            for into, read in ((family.heads_into, heads), (family.neurons_into, kept.neurons[number])):
                module = layer.get_submodule(into)
                inputs = module.weight.T if isinstance(module, torch.nn.Linear) else module.weight
                inputs[[at for at in range(len(inputs)) if at not in read]] = 0
    return model


@settings(max_examples=25)
@given(
    st.sampled_from(["llama", "mistral", "qwen2", "qwen3"]), st.integers(1, 2), st.integers(1, 2), st.integers(1, 20)
)
def test_a_student_is_its_teacher_with_other_heads_and_neurons_unread(name, groups, of_each, neurons):
    # In float64: float32 adds up a narrower matrix in another order, which alone moves logits by 1e-5.
    model = teacher(name).double()
    sizes = {"heads": groups * of_each, "key_value_heads": groups, "intermediate_size": neurons}
    student, kept = prune_width(model, wanted(model, **sizes), [batch()])
    assert [len(layer) for layer in kept.neurons] == [neurons] * 2
    torch.testing.assert_close(logits(student.eval()), logits(unread(model, kept)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "gpt_neox serial"])
def test_a_student_whose_heads_fill_it_is_its_teacher_with_other_neurons_unread(name):
    model = teacher(name)
    student, kept = prune_width(model, wanted(model, intermediate_size=7), [batch()])
    assert len(kept.neurons[0]) == 7
    torch.testing.assert_close(logits(student.eval()), logits(unread(model, kept)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_without_channels_that_do_nothing_a_model_says_the_same(name):
    dead = [0, 1, 5, 6, 9, 12, 30, 31]
    heads = [1] if FAMILIES[name.partition(" ")[0]].heads_fill_hidden else []
    model = silence(teacher(name), channels=dead, heads=heads)
    student, kept = prune_width(model, wanted(model, hidden_size=24), [batch()])
    assert kept.channels == [channel for channel in range(32) if channel not in dead]
    assert kept.heads == [[head for head in range(4) if head not in heads]] * 2
    assert student.config.hidden_size == 24
    torch.testing.assert_close(logits(student.eval()), logits(model), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", MODELS)
def test_parts_that_do_something_are_missed(name):
    model = teacher(name)
    for sizes in ({"hidden_size": 24}, {"intermediate_size": 16}, {"heads": 2}):
        student, _ = prune_width(model, wanted(model, **sizes), [batch()])
        assert (logits(student.eval()) - logits(model)).abs().max() > 1e-2, sizes


@pytest.mark.parametrize("name", MODELS)
def test_a_student_of_its_teachers_width_is_its_teacher(name):
    model = teacher(name)
    student, kept = prune_width(model, widths_of(model.config), [batch()])
    assert torch.equal(logits(student.eval()), logits(model))
    assert kept.channels == list(range(32))


@pytest.mark.parametrize("name", MODELS)
def test_a_student_survives_the_disk_with_its_shape_and_its_tie(name, tmp_path):
    model = teacher(name)
    student, _ = prune_width(model, wanted(model, hidden_size=24, intermediate_size=12), [batch()])
    student.eval().save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(logits(again), logits(student))
    assert widths_of(again.config) == widths_of(student.config)
    assert widths_of(again.config).head_dim == widths_of(model.config).head_dim
    tied = model.config.tie_word_embeddings
    for one in (student, again):
        ends = (one.get_input_embeddings().weight, one.get_output_embeddings().weight)
        assert (ends[0].data_ptr() == ends[1].data_ptr()) is tied
    assert all(weight.requires_grad for weight in student.parameters())


def test_within_groups_the_best_heads_are_kept_and_of_the_groups_the_best():
    # Groups (0, 1), (2, 3), (4, 5): one head of each of two groups; the last group does nothing.
    torch.manual_seed(3)
    shape = GROUPED | {"num_attention_heads": 6, "num_key_value_heads": 3, "hidden_size": 24}
    config = AutoConfig.for_model("mistral", **TOKENS, **shape)
    model = silence(AutoModelForCausalLM.from_config(config).eval(), heads=[4, 5])
    with torch.no_grad():
        for layer in model.model.layers:
            # Head 1 attends more evenly than any other head, so its averaged output is small.
            layer.self_attn.q_proj.weight[6:12] = 0
            layer.self_attn.q_proj.weight[12:18] = 0
    student, kept = prune_width(model, wanted(model, heads=2, key_value_heads=2), [batch()])
    assert kept.key_value_heads == [[0, 1]] * 2
    assert kept.heads == [[0, 3]] * 2
    for old, new in zip(model.model.layers, student.model.layers, strict=True):
        rows = [*range(6), *range(18, 24)]
        assert torch.equal(new.self_attn.q_proj.weight, old.self_attn.q_proj.weight[rows])
        assert torch.equal(new.self_attn.o_proj.weight, old.self_attn.o_proj.weight[:, rows])
        assert torch.equal(new.self_attn.v_proj.weight, old.self_attn.v_proj.weight[:12])


def test_a_student_is_a_copy_and_its_teacher_stays_as_it_was():
    model = teacher("llama")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    student, _ = prune_width(model, wanted(model, intermediate_size=12), [batch()])
    with torch.no_grad():
        for weight in student.parameters():
            weight.add_(1.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(layer._forward_pre_hooks or layer._forward_hooks for layer in model.modules())


def test_pads_count_for_nothing():
    model = teacher("llama")
    padded = batch(length=20)
    padded["attention_mask"][:, 12:] = 0
    short = {name: value[:, :12] for name, value in padded.items()}
    students = [prune_width(model, wanted(model, hidden_size=24, heads=2), [each])[0] for each in (padded, short)]
    torch.testing.assert_close(logits(students[0].eval()), logits(students[1].eval()), rtol=0, atol=1e-5)


GPT2 = transformers.GPT2Config(n_embd=32, n_head=4)
LLAMA = transformers.LlamaConfig(
    hidden_size=32, num_attention_heads=8, num_key_value_heads=2, intermediate_size=64, vocab_size=10
)


@pytest.mark.parametrize(
    ("config", "sizes", "shape"),
    [
        (LLAMA, {"heads": 4}, Widths(4, 1, 4, 64, 32)),
        (LLAMA, {"key_value_heads": 1}, Widths(4, 1, 4, 64, 32)),
        (LLAMA, {"heads": 4, "key_value_heads": 2}, Widths(4, 2, 4, 64, 32)),
        (LLAMA, {"hidden_size": 16, "intermediate_size": 3}, Widths(8, 2, 4, 3, 16)),
        (GPT2, {"heads": 3}, Widths(3, 3, 8, 128, 24)),
        (GPT2, {"key_value_heads": 3}, Widths(3, 3, 8, 128, 24)),
        (GPT2, {"hidden_size": 16, "intermediate_size": 5}, Widths(2, 2, 8, 5, 16)),
        (GPT2, {"hidden_size": 16, "heads": 2}, Widths(2, 2, 8, 128, 16)),
        (GPT2, {"intermediate_size": 5}, Widths(4, 4, 8, 5, 32)),
    ],
)
def test_what_is_not_given_follows(config, sizes, shape):
    keys = ("heads", "key_value_heads", "intermediate_size", "hidden_size")
    assert pruned_widths(config, *(sizes.get(key) for key in keys)) == shape


@pytest.mark.parametrize(
    ("config", "sizes", "sentence"),
    [
        (LLAMA, {"heads": 9}, "`student.heads` is 9, but the teacher has 8; give less"),
        (LLAMA, {"hidden_size": 40}, "`student.hidden_size` is 40, but the teacher has 32; give less"),
        (LLAMA, {"intermediate_size": 65}, "`student.intermediate_size` is 65, but the teacher has 64; give less"),
        (LLAMA, {"key_value_heads": 4}, "`student.key_value_heads` is 4, but the teacher has 2; give less"),
        (GPT2, {"intermediate_size": 129}, "`student.intermediate_size` is 129, but the teacher has 128; give less"),
        (LLAMA, {"heads": 6}, "in groups of 4; give a multiple of 4, or `student.key_value_heads` too"),
        (
            LLAMA,
            {"heads": 5, "key_value_heads": 2},
            "is no multiple of `student.key_value_heads: 2`; give a multiple of 2",
        ),
        (LLAMA, {"heads": 8, "key_value_heads": 1}, "share each of `student.key_value_heads: 1`; give at most 4"),
        (
            LLAMA,
            {"hidden_size": 30},
            "needs a hidden size that is a multiple of them, and it is 30; give `student.hidden_size: 24`",
        ),
        (LLAMA, {"heads": 6, "key_value_heads": 2}, "`student.heads`: a llama of 6 heads needs a hidden size"),
        (GPT2, {"hidden_size": 30}, "times their 8 dimensions; give 24 for 3 heads"),
        (GPT2, {"hidden_size": 24, "heads": 2}, "times their 8 dimensions; give 16 for 2 heads"),
    ],
)
def test_widths_that_cannot_be_are_refused(config, sizes, sentence):
    keys = ("heads", "key_value_heads", "intermediate_size", "hidden_size")
    with pytest.raises(UserError) as told:
        pruned_widths(config, *(sizes.get(key) for key in keys))
    assert sentence in str(told.value)
    assert "\n" not in str(told.value)


def test_a_model_of_another_kind_is_refused():
    fields = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    other = AutoModelForCausalLM.from_config(AutoConfig.for_model("opt", ffn_dim=16, vocab_size=40, **fields))
    with pytest.raises(UserError, match=r"prune_width` knows the weights of llama, .*, and the teacher is a opt; use"):
        prune_width(other, Widths(2, 2, 8, 16, 16), [batch()])


def test_a_model_with_a_weight_that_is_not_known_is_refused():
    other = tiny.gpt2(add_cross_attention=True)
    with pytest.raises(
        UserError, match=r"the teacher has transformer\.h\.0\.crossattention\S+, which is not a known weight of a gpt2"
    ):
        prune_width(other, widths_of(other.config), [batch()])
