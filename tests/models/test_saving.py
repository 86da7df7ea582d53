"""What cannot be saved is mended or refused before a training begins."""

import json

import pytest
import torch
from transformers import GenerationConfig

from potstill.errors import UserError
from potstill.models.pretrained import ModelSource
from potstill.models.saving import check_can_be_saved, mend_generation_config, stop_at
from tiny import llama, save_model


def generating(**fields):
    model = llama()
    for name, value in fields.items():
        setattr(model.generation_config, name, value)
    return model


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.7},
        {"temperature": 0.7, "top_p": 0.5, "top_k": 3, "min_p": 0.1, "typical_p": 0.5},
        {"do_sample": False, "epsilon_cutoff": 1e-4, "eta_cutoff": 1e-4},
        {"length_penalty": 2.0, "early_stopping": True},
        {"output_scores": True},
        {"pad_token_id": -1},
    ],
)
def test_settings_that_change_nothing_are_dropped_and_named(tmp_path, caplog, fields):
    model = generating(**fields)
    with pytest.raises(ValueError, match="Fix these issues"):
        model.save_pretrained(tmp_path / "before")
    mend_generation_config(model, f"model {fields}")
    dropped = [name for name in fields if name != "do_sample"]
    assert all(f"`{name}`" in caplog.text for name in dropped)
    assert all(getattr(model.generation_config, name) == getattr(GenerationConfig(), name) for name in dropped)
    model.save_pretrained(tmp_path / "after")


def test_settings_that_are_used_stay():
    model = generating(do_sample=True, temperature=0.7, top_p=0.5)
    mend_generation_config(model, "`model`")
    assert (model.generation_config.temperature, model.generation_config.top_p) == (0.7, 0.5)


def test_a_model_is_mended_when_it_is_loaded(tmp_path):
    folder = save_model(llama(), tmp_path / "model")
    (folder / "generation_config.json").write_text(json.dumps({"temperature": 0.7, "eos_token_id": 0}))
    model = ModelSource(str(folder), "`student.model`").model()
    # Trainer changes the end token, after which transformers is strict.
    model.generation_config.eos_token_id = 5
    model.save_pretrained(tmp_path / "saved")


@pytest.mark.parametrize("fields", [{"num_return_sequences": 3}, {"max_new_tokens": 0}])
def test_settings_that_contradict_each_other_are_refused(fields):
    with pytest.raises(UserError, match=r"^`model` could not be saved: .*generation_config.json"):
        check_can_be_saved(generating(**fields), "`model`")


def test_weights_that_are_shared_without_a_word_are_refused():
    model = llama()
    model.model.layers[1].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
    with pytest.raises(UserError, match=r"^`model` could not be saved: "):
        check_can_be_saved(model, "`model`")


def test_generation_settings_in_the_configuration_are_refused():
    model = llama()
    model.config.temperature = 0.7
    with pytest.raises(UserError, match=r"^`model` could not be saved: Some generation parameters"):
        check_can_be_saved(model, "`model`")


def test_tied_weights_and_adapters_can_be_saved():
    from peft import LoraConfig, get_peft_model

    check_can_be_saved(llama(tie_word_embeddings=True), "`model`")
    check_can_be_saved(get_peft_model(llama(), LoraConfig(target_modules=["q_proj"])), "`model`")


def test_a_quantisation_that_cannot_be_written_is_refused():
    class Quantizer:
        quantization_config = type("Config", (), {"quant_method": "some"})

        def is_serializable(self):
            return False

    model = llama()
    model.hf_quantizer = Quantizer()
    with pytest.raises(UserError, match="`model` is quantised by some, which cannot be saved; train an adapter"):
        check_can_be_saved(model, "`model`")


def test_a_check_writes_nothing_and_changes_no_weight():
    model = llama()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    check_can_be_saved(model, "`model`")
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize(
    ("given", "expected"), [(None, [7]), (0, [0, 7]), ([0, 3], [0, 3, 7]), ([7, 0], [7, 0]), (7, 7)]
)
def test_a_model_stops_at_one_more_token(given, expected, tmp_path):
    model = generating(eos_token_id=given)
    stop_at(model, 7)
    model.save_pretrained(tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == expected
