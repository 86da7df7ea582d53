"""The gate for models of others: what is whole passes, and anything else is refused with a sentence."""

import ast
import json
import logging
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    GPT2ForSequenceClassification,
    GPT2Model,
    LlamaForSequenceClassification,
    LlamaModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    ViTConfig,
    ViTModel,
)

from potstill.errors import UserError
from potstill.models.pretrained import ModelSource, check_tokens
from tiny import LAYERS, VOCABULARY, bert, gpt2, gpt_neox, llama, save_model, tokenizer

KEY = "`teachers.big.model`"
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
SOURCE = Path(__file__).parents[2] / "src" / "potstill"


def source(folder):
    return ModelSource(str(folder), KEY)


def with_config(folder, **fields):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def with_weights(folder, change):
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def refused(folder, *, early=True):
    """The sentence with which a folder is refused when it is loaded; and before that, if it can be seen earlier."""
    with pytest.raises(UserError) as told:
        source(folder).model()
    if early:
        with pytest.raises(UserError) as before:
            source(folder).check()
        assert str(before.value) == str(told.value)
    sentence = str(told.value)
    assert sentence.startswith(KEY)
    assert "\n" not in sentence
    return sentence


def same(one, other):
    ids = torch.arange(12)[None]
    return torch.equal(one(input_ids=ids).logits, other(input_ids=ids).logits)


MASKS = {"attn.bias": torch.ones(1, 1, 8, 8).tril(), "attn.masked_bias": torch.tensor(-1e4)}
OLD = {
    "llama with rotary frequencies": (
        llama,
        lambda w: w | {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.ones(4) for n in range(LAYERS)},
    ),
    "gpt2 as its authors saved it": (
        gpt2,
        lambda w: (
            {name.removeprefix("transformer."): one for name, one in w.items()}
            | {f"h.{n}.{name}": one.clone() for n in range(LAYERS) for name, one in MASKS.items()}
        ),
    ),
    "neox with masks": (
        gpt_neox,
        lambda w: (
            w
            | {
                f"gpt_neox.layers.{n}.attention.{k}": torch.ones(1)
                for n in range(LAYERS)
                for k in ("bias", "masked_bias")
            }
        ),
    ),
    "tied, and its head saved too": (
        lambda: llama(tie_word_embeddings=True),
        lambda w: w | {"lm_head.weight": w["model.embed_tokens.weight"].clone()},
    ),
    "tied qwen": (
        lambda: Qwen2ForCausalLM(
            Qwen2Config(vocab_size=VOCABULARY, tie_word_embeddings=True, **SHAPE, num_key_value_heads=2)
        ),
        lambda w: w,
    ),
}


@pytest.mark.parametrize(("model", "change"), OLD.values(), ids=OLD)
def test_whole_models_are_taken_as_they_are(tmp_path, model, change):
    made = model().eval()
    folder = save_model(made, tmp_path / "model")
    with_weights(folder, change)
    source(folder).check()
    assert same(source(folder).model(), made)


def test_weights_in_parts_and_pickled_weights_are_taken(tmp_path):
    made = llama()
    made.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    assert (tmp_path / "parts" / "model.safetensors.index.json").is_file()
    folder = save_model(made, tmp_path / "pickled")
    torch.save(made.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    for one in (tmp_path / "parts", folder):
        assert same(source(one).model(), made)


CHANGED = {
    "more layers": (
        {"num_hidden_layers": 8},
        "its files lack 36 weights (model.layers.4.input_layernorm.weight, model.layers.4.mlp.down_proj.weight, "
        "model.layers.4.mlp.gate_proj.weight and 33 more) that config.json asks for",
    ),
    "fewer layers": ({"num_hidden_layers": 3}, "its files have 9 weights (model.layers.3.input_layernorm.weight, "),
    "another width": ({"intermediate_size": 65}, "model.layers.0.mlp.down_proj.weight [32, 64] for [32, 65]"),
    "fewer tokens": ({"vocab_size": 299}, None),
    "a width of no machine": ({"hidden_size": 10**9}, None),
    "layers without end": ({"num_hidden_layers": 10**6}, "its config.json has 1,000,000 layers, and its files have 39"),
}


@pytest.mark.parametrize(("fields", "sentence"), CHANGED.values(), ids=CHANGED)
def test_weights_that_do_not_fill_the_configuration_are_refused_before_they_are_read(tmp_path, fields, sentence):
    folder = save_model(llama(), tmp_path / "model")
    with_config(folder, **fields)
    with pytest.raises(UserError) as told:
        source(folder).check()
    assert (sentence or f"{KEY}: ") in str(told.value)
    if fields.get("hidden_size", 0) < 10**9:
        refused(folder, early=False)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda w: {name: one for name, one in w.items() if "norm" not in name}, "its files lack 9 weights"),
        (lambda w: w | {"v_head.weight": torch.ones(3)}, "its files have 1 weight (v_head.weight) that"),
        (lambda w: {f"module.{name}": one for name, one in w.items()}, "its files lack 39 weights"),
    ],
    ids=["lost", "left over", "another prefix"],
)
def test_weights_lost_or_left_over_are_refused_with_their_names(tmp_path, caplog, monkeypatch, change, sentence):
    folder = save_model(llama(), tmp_path / "model")
    with_weights(folder, change)
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    assert sentence in refused(folder)
    assert not caplog.records, "the sentence is all that is said"


def _bart():
    layers = {f"{side}_{name}": 1 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    return BartConfig(vocab_size=VOCABULARY, d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, **layers)


OTHERS = {
    "bert": (bert, "looks ahead"),
    "masked bert": (lambda: bert(kind=BertForMaskedLM), "looks ahead"),
    "bert's classifier": (lambda: bert(kind=BertForSequenceClassification), "that config.json asks for, and have"),
    "bert's base": (lambda: bert(kind=BertModel), "is a BertModel, a base model without a head"),
    "llama's base": (lambda: LlamaModel(llama().config), "is a LlamaModel, a base model without a head"),
    "a base with a tied head": (lambda: GPT2Model(gpt2().config), "is a GPT2Model, a base model without a head"),
    "llama's classifier": (lambda: LlamaForSequenceClassification(llama().config), "(score.weight)"),
    "a classifier with a tied head": (
        lambda: GPT2ForSequenceClassification(gpt2(pad_token_id=1).config),
        "have 1 weight (score.weight)",
    ),
    "encoder and decoder": (lambda: BartForConditionalGeneration(_bart()), "is a bart, which is an encoder-decoder"),
    "pictures": (
        lambda: ViTModel(ViTConfig(image_size=8, patch_size=4, **SHAPE)),
        "is a vit, of which transformers has no causal language model",
    ),
}


@pytest.mark.parametrize(("model", "sentence"), OTHERS.values(), ids=OTHERS)
def test_folders_of_other_models_are_refused_by_name(tmp_path, model, sentence):
    assert sentence in refused(save_model(model(), tmp_path / "model"))


class Code:
    """A pickle that runs a command."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def _pickled(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Code(folder / "ran")}))


def _cut(file):
    file.write_bytes(file.read_bytes()[:-50])


def _index(folder, content):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


DAMAGE = {
    "no configuration": (lambda f: (f / "config.json").unlink(), "it has no config.json"),
    "a configuration of no fields": (lambda f: (f / "config.json").write_text("[1]"), "its config.json is not JSON"),
    "a configuration cut off": (lambda f: _cut(f / "config.json"), "its config.json is not JSON"),
    "a configuration without end": (lambda f: (f / "config.json").write_text("[" * 10**5), "its config.json is not"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "it has no model.safetensors"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "its model.safetensors is cut off"),
    "weights cut off": (lambda f: _cut(f / "model.safetensors"), "its model.safetensors is cut off"),
    "a part that is missing": (
        lambda f: _index(f, {"weight_map": {"a": "model-00002-of-00002.safetensors"}}),
        "it has no model-00002-of-00002.safetensors",
    ),
    "an index of no names": (lambda f: _index(f, {"weight_map": {"a": ["b"]}}), "is not a whole index"),
    "a pickle that runs code": (_pickled, "its weights are a pickle that holds more than tensors"),
    "a file in place of a folder": (lambda f: (f / "config.json").write_text("nope"), "its config.json is not JSON"),
    "an unknown kind": (lambda f: with_config(f, model_type="xyz"), "its `model_type` 'xyz' is unknown"),
    "code of its own": (
        lambda f: with_config(f, model_type="my", auto_map={"AutoConfig": "x.Y", "AutoModelForCausalLM": "x.Z"}),
        "it needs code of its own (`auto_map` in its config.json), and potstill runs none",
    ),
    "a negative width": (lambda f: with_config(f, hidden_size=-4), "is not a whole model"),
    "layers in words": (lambda f: with_config(f, num_hidden_layers="four"), "expected int, got str (value: 'four')"),
    "no heads": (lambda f: with_config(f, num_attention_heads=0), "is not a whole model"),
    "an unknown activation": (lambda f: with_config(f, hidden_act="zz"), "does not know, or lacks a field: 'zz'"),
    "an unknown format": (lambda f: with_config(f, dtype="float99"), "is not a whole model"),
}


@pytest.mark.parametrize(("damage", "sentence"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_folder_is_refused_with_a_sentence(tmp_path, damage, sentence):
    folder = save_model(llama(), tmp_path / "model")
    damage(folder)
    assert sentence in refused(folder)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("family", [llama, gpt2, gpt_neox])
@pytest.mark.parametrize("content", [None, "", "{}", "[1]"])
def test_a_folder_without_a_whole_tokenizer_is_refused(tmp_path, family, content):
    folder = save_model(family(), tmp_path / "model")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    if content is not None:
        (folder / "tokenizer.json").write_text(content)
    for use in (source(folder).check, source(folder).tokenizer):
        with pytest.raises(UserError, match=rf"^{KEY}: .* is not a whole model: its tokenizer cannot be loaded: "):
            use()


def test_tokens_without_an_embedding_are_refused_with_both_numbers(tmp_path):
    folder = save_model(llama(), tmp_path / "model")
    more = source(folder).tokenizer()
    more.add_tokens(["<one>", "<two>"])
    more.save_pretrained(folder)
    with pytest.raises(UserError, match="its tokenizer has ids up to 301, but the model has only 300 embeddings"):
        source(folder).check()


def test_a_model_may_have_more_embeddings_than_tokens():
    check_tokens(tokenizer(), VOCABULARY + 20, KEY)
    check_tokens(None, 1, KEY)


def test_an_adapter_alone_is_refused(tmp_path):
    from peft import LoraConfig, get_peft_model

    folder = save_model(llama(), tmp_path / "model")
    get_peft_model(llama(), LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    assert "it holds an adapter alone" in refused(tmp_path / "adapter")
    source(folder).check()


@pytest.mark.parametrize("name", ["~nobody/x", "x" * 300, "no/such/model", "a\0b", "/no/such/folder"])
def test_a_name_that_is_nowhere_is_refused(name):
    for use in (source(name).check, source(name).config, source(name).tokenizer, source(name).model):
        with pytest.raises(UserError, match=f"^{KEY}: .* is neither a folder here nor a model that can be loaded from"):
            use()


def test_too_little_memory_is_no_fault_of_the_folder(tmp_path, monkeypatch):
    folder = save_model(llama(), tmp_path / "model")

    def fails(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("potstill.models.pretrained.AutoModelForCausalLM.from_pretrained", fails)
    with pytest.raises(RuntimeError, match="allocate memory"):
        source(folder).model()


def test_a_check_reads_no_weights_of_a_causal_model(tmp_path, monkeypatch):
    folder = save_model(llama(), tmp_path / "model")
    monkeypatch.setattr(ModelSource, "model", lambda *_, **__: pytest.fail("the weights were loaded"))
    source(folder).check()


def test_nothing_is_loaded_but_through_the_gate():
    gate, named = SOURCE / "models" / "pretrained.py", ("AutoModelForCausalLM", "AutoConfig", "AutoTokenizer")
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            loads = isinstance(node, ast.Attribute) and node.attr == "from_pretrained"
            assert not loads or file == gate or ast.unparse(node.value) not in named, f"{file}:{node.lineno}"


@pytest.mark.parametrize("how", [{}, {"revision": "main", "gguf_file": "parts/model.gguf"}])
def test_a_model_of_the_hub_is_pinned_by_the_commit_of_its_files(monkeypatch, tmp_path, how):
    asked = []

    def download(name, file, revision):
        asked.append((name, file, revision))
        return str(tmp_path / "models--a--b" / "snapshots" / "c0ffee" / file)

    monkeypatch.setattr("potstill.models.pretrained.hf_hub_download", download)
    assert ModelSource("a/b", "it", how).commit() == "c0ffee"
    assert asked == [("a/b", how.get("gguf_file", "config.json"), how.get("revision"))]


def test_a_model_in_a_folder_has_no_commit(tmp_path):
    assert ModelSource(str(tmp_path), "it").commit() is None
