import json

import pytest

from potstill.errors import UserError
from potstill.evaluation import baselines
from tiny import bert, llama, save_model, toy_recipe


@pytest.fixture
def folder(tmp_path):
    return save_model(llama(3), tmp_path / "baseline")


def _refused(tmp_path, source):
    recipe = toy_recipe(tmp_path, f"evaluate.models={json.dumps({'baseline': str(source)})}")
    with pytest.raises(UserError) as told:
        baselines.check(recipe)
    sentence = str(told.value)
    assert sentence.startswith("`evaluate.models.baseline`")
    assert "\n" not in sentence
    return sentence


def test_a_whole_folder_is_taken(folder, tmp_path):
    baselines.check(toy_recipe(tmp_path, f"evaluate.models={json.dumps({'baseline': str(folder)})}"))


def test_a_model_that_looks_ahead(tmp_path):
    assert "the BertLMHeadModel looks ahead" in _refused(tmp_path, save_model(bert(), tmp_path / "bert"))


def test_weights_that_do_not_fill_the_configuration(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 8}))
    assert "its files lack 36 weights" in _refused(tmp_path, folder)


def test_a_folder_without_weights(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    assert "is not a whole model: it has no model.safetensors; copy it again" in _refused(tmp_path, folder)


def test_a_folder_without_its_configuration(folder, tmp_path):
    (folder / "config.json").unlink()
    assert "it has no config.json" in _refused(tmp_path, folder)


def test_weights_that_were_cut_short(folder, tmp_path):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "its model.safetensors is cut off (" in _refused(tmp_path, folder)


def test_a_part_of_the_weights_that_is_missing(folder, tmp_path):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "it has no model-00002-of-00002.safetensors" in _refused(tmp_path, folder)


def test_a_configuration_that_was_cut_short(folder, tmp_path):
    (folder / "config.json").write_text('{"model_type": "lla')
    assert "its config.json is not JSON" in _refused(tmp_path, folder)


def test_a_folder_without_a_tokenizer(folder, tmp_path):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert "is not a whole model: " in _refused(tmp_path, folder)


def test_neither_a_folder_nor_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    sentence = _refused(tmp_path, "nobody/nothing")
    assert "'nobody/nothing' is neither a folder here nor a model that can be loaded from the hub (" in sentence


@pytest.mark.parametrize("name", ["teacher", "start", "student", "control"])
def test_names_of_the_runs_own_models_are_refused(tmp_path, name):
    with pytest.raises(UserError, match=rf"`evaluate\.models`: '{name}' is the name of one of the run's own models"):
        toy_recipe(tmp_path, f"evaluate.models={json.dumps({name: 'x'})}")
