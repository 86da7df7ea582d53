"""A model's folder: what makes it whole, and its fingerprint."""

import json
import shutil

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from potstill.models.folder import ADAPTER, fingerprint, flaw, save_model
from tiny import llama, tokenizer


@pytest.fixture
def folder(tmp_path):
    llama(3, layers=1).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def adapter(folder):
    """The folder of an adapter: its own configuration and weights, without those of the model."""
    (folder / "config.json").rename(folder / ADAPTER)
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    return folder


def _cut(file):
    file.write_bytes(file.read_bytes()[:-100])


def test_a_whole_model(folder):
    assert flaw(folder) is None


def test_a_folder_that_is_not_there(tmp_path):
    assert flaw(tmp_path / "none") == "is not there"


def test_a_configuration_is_missing_or_cut_off(folder):
    (folder / "config.json").write_text('{"model_type": "ll')
    assert flaw(folder) == "is not a whole model: its config.json is not JSON"
    (folder / "config.json").unlink()
    assert flaw(folder) == "is not a whole model: it has no config.json"


def test_weights_are_missing_or_cut_off(folder):
    _cut(folder / "model.safetensors")
    assert flaw(folder).startswith("is not a whole model: its model.safetensors is cut off (")
    (folder / "model.safetensors").unlink()
    assert flaw(folder) == "is not a whole model: it has no model.safetensors"


def test_a_model_in_shards_is_whole_when_all_of_them_are(tmp_path):
    folder = tmp_path / "model"
    llama(layers=2).save_pretrained(folder, max_shard_size="50KB")
    parts = sorted(folder.glob("model-*.safetensors"))
    assert len(parts) > 1
    assert flaw(folder) is None
    parts[-1].unlink()
    assert flaw(folder) == f"is not a whole model: it has no {parts[-1].name}"
    (folder / "model.safetensors.index.json").write_text("[]")
    assert flaw(folder) == "is not a whole model: its model.safetensors.index.json is not a whole index"


def test_an_adapter_is_whole_with_its_own_files(adapter):
    assert flaw(adapter) is None
    _cut(adapter / "adapter_model.safetensors")
    assert flaw(adapter).startswith("is not a whole model: its adapter_model.safetensors is cut off (")
    (adapter / "adapter_model.safetensors").unlink()
    assert flaw(adapter) == "is not a whole model: it has no adapter_model.safetensors"
    (adapter / "adapter_model.bin").touch()
    assert flaw(adapter) is None


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
def test_weights_of_another_format_are_not_opened(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / "training_args.bin").touch()
    assert flaw(folder) == "is not a whole model: it has no model.safetensors"
    (folder / name).touch()
    assert flaw(folder) is None


def test_a_copy_is_the_same_and_other_weights_are_not(folder, tmp_path):
    copy, other = tmp_path / "copy", tmp_path / "other"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"_name_or_path": "elsewhere"}))
    assert fingerprint(copy) == fingerprint(folder)
    llama(20, layers=1).save_pretrained(other)
    assert fingerprint(other) != fingerprint(folder)
    (copy / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    assert fingerprint(copy) != fingerprint(folder), "the same weights may do something else"


def test_a_saved_model_is_whole_and_has_its_tokenizer(tmp_path):
    save_model(llama(3, layers=1), tokenizer(), tmp_path / "model")
    assert flaw(tmp_path / "model") is None
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert AutoTokenizer.from_pretrained(tmp_path / "model").get_vocab() == tokenizer().get_vocab()
