"""A small model has the architecture and the ratios of the large one; the large ones have their published sizes."""

import json

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from potstill.rehearsal.hub_models import hub_model
from potstill.rehearsal.small_models import Scale, parameters, save_small_model

MIXTURE = {
    "model_type": "mixtral",
    "hidden_size": 1024,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "intermediate_size": 3584,
    "num_local_experts": 8,
    "vocab_size": 1000,
}
WIDE_HEADS = {
    "model_type": "qwen3",
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "vocab_size": 1000,
    "layer_types": ["full_attention"] * 28,
}
GPT2 = {"model_type": "gpt2", "n_layer": 24, "n_embd": 1536, "n_head": 16, "n_inner": 6144, "vocab_size": 1000}


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("EleutherAI/pythia-70m", 70_426_624),
        ("EleutherAI/pythia-160m", 162_322_944),
        ("meta-llama/Llama-2-7b-hf", 6_738_415_616),
        ("meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248),
        ("meta-llama/Llama-3.1-405B-Instruct", 405_853_388_800),
    ],
)
def test_the_table_has_the_published_sizes(name, count):
    model = hub_model(name)
    assert model is not None
    assert parameters(model.config) == count


def whole(config):
    return AutoConfig.for_model(config["model_type"], **{k: v for k, v in config.items() if k != "model_type"})


@pytest.mark.parametrize("config", [MIXTURE, WIDE_HEADS, GPT2], ids=["mixture", "wide heads", "gpt2"])
def test_only_sizes_change_and_ratios_stay(config):
    small = Scale([config]).cut(config)
    before, after = whole(config), whole(small)
    assert after.model_type == before.model_type
    assert after.vocab_size == before.vocab_size
    key_value = [getattr(one, "num_key_value_heads", one.num_attention_heads) for one in (before, after)]
    assert before.num_attention_heads / key_value[0] == after.num_attention_heads / key_value[1]
    assert 2 <= after.num_hidden_layers <= 4
    assert getattr(after, "num_local_experts", 0) == getattr(before, "num_local_experts", 0)
    assert parameters(small) < parameters(config) / 20
    assert json.dumps(config)


def test_models_of_one_recipe_keep_their_ratios_to_each_other():
    teacher = {**MIXTURE, "num_hidden_layers": 32, "num_attention_heads": 12, "num_key_value_heads": 12}
    student = {
        **teacher,
        "hidden_size": 512,
        "num_hidden_layers": 16,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
    }
    scale = Scale([teacher, student])
    large, small = whole(scale.cut(teacher)), whole(scale.cut(student))
    assert (large.num_attention_heads, small.num_attention_heads) == (3, 2)
    assert (large.num_hidden_layers, small.num_hidden_layers) == (4, 2)


def test_widths_fit_quantisation_in_groups():
    odd = {**MIXTURE, "hidden_size": 960, "num_attention_heads": 15, "num_key_value_heads": 5}
    assert Scale([odd]).cut(odd, in_groups=True)["hidden_size"] % 32 == 0


def test_a_model_that_is_small_already_stays_whole():
    tiny = {**MIXTURE, "num_hidden_layers": 1, "num_key_value_heads": 1, "num_attention_heads": 1}
    small = Scale([tiny]).cut(tiny)
    assert (small["num_hidden_layers"], small["num_attention_heads"]) == (1, 1)


def test_its_repository_is_as_the_hub_has_it(tmp_path):
    published = hub_model("EleutherAI/pythia-70m")
    assert published is not None
    small = Scale([published.config]).cut(published.config)
    save_small_model(small, published.tokenizer, tmp_path / "model", seed=0)
    assert json.loads((tmp_path / "model" / "config.json").read_text()) == small
    assert (tmp_path / "model" / "model.safetensors.index.json").is_file()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert str(model.dtype) == "torch.float16"
    tokens = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert len(tokens) == 50_277
    # A folder's own tokenizer is copied.
    save_small_model(small, tmp_path / "model", tmp_path / "copy", seed=0)
    assert AutoTokenizer.from_pretrained(tmp_path / "copy").get_vocab() == tokens.get_vocab()
