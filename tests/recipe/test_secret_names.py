"""Secrets: no recipe may hold one, whichever key it is given by."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimal
from potstill.errors import UserError
from potstill.recipe.secret_names import find_secret, holds_secret, is_secret, without_secret

TRAININGS = ("distil.training", "control.training", "pretrain.p.training", "search.training")
FOREIGN = (*TRAININGS, "student.adapter", "student.quantization", "teachers.t.quantization", "pretrain.p.config")
NAMES = ("hub_token", "token", "use_auth_token", "password", "secret", "api_key", "wandb_api_key", "client-secret")
VALUE = "s3cr3t-value"


def refused(folder, *overrides):
    whole = ["pretrain.p.config.model_type=llama"] if overrides[0].startswith("pretrain") else []
    with pytest.raises(UserError) as error:
        minimal.recipe(folder, *whole, *overrides)
    return str(error.value)


@pytest.mark.parametrize("section", FOREIGN)
@pytest.mark.parametrize("name", [*NAMES, "deep.inside.api_key"])
def test_no_section_of_another_library_takes_a_secret(tmp_path, section, name):
    told = refused(tmp_path, f"{section}.{name}={VALUE}")
    assert f"`{section}.{name}`: is a secret" in told
    assert "HF_TOKEN" in told
    assert VALUE not in told
    assert "\n" not in told


@pytest.mark.parametrize("key", ["token", "teachers.t.token", "corpus.hf_token", "evaluate.api_key"])
def test_a_secret_under_an_unknown_key_is_called_one(tmp_path, key):
    told = refused(tmp_path, f"{key}={VALUE}")
    assert f"`{key}`: is a secret" in told
    assert VALUE not in told


def test_generators_settings_take_no_secret(tmp_path):
    source = f"{{generator: chain_sum, count: 2, settings: {{api_key: {VALUE}}}}}"
    with pytest.raises(UserError) as error:
        minimal.questions(tmp_path, f"corpus.questions=[{source}]")
    assert "`corpus.questions.0.settings.api_key`: is a secret" in str(error.value)
    assert VALUE not in str(error.value)


@pytest.mark.parametrize("key", ["teachers.t.model", "about", "student.from", "distil.training.run_name"])
@given(value=st.text(string.ascii_letters + string.digits, min_size=34, max_size=34))
def test_a_token_of_the_hub_is_refused_anywhere(tmp_path_factory, key, value):
    told = refused(tmp_path_factory.mktemp("any"), f"{key}=hf_{value}")
    assert f"`{key}`: is a secret" in told
    assert value not in told


@pytest.mark.parametrize("section", TRAININGS)
@pytest.mark.parametrize(
    "field", ["push_to_hub=true", "push_to_hub=false", "hub_model_id=me/x", "hub_strategy=end", "hub_token=null"]
)
def test_a_training_publishes_nothing(tmp_path, section, field):
    told = refused(tmp_path, f"{section}.{field}")
    assert f"`{section}.{field.partition('=')[0]}`: uploads a model" in told
    assert "potstill push" in told


def test_every_publishing_field_of_transformers_is_refused():
    from dataclasses import fields

    from transformers import TrainingArguments

    from potstill.recipe.training_fields import PUBLISHES

    hub = {field.name for field in fields(TrainingArguments) if "hub" in field.name}
    assert hub
    assert all(PUBLISHES.match(name) for name in hub)


def test_no_setting_of_the_libraries_is_taken_for_a_secret():
    from dataclasses import fields

    from peft import LoraConfig
    from transformers import BitsAndBytesConfig, GenerationConfig, LlamaConfig, TrainingArguments

    known = {field.name for kind in (LoraConfig, TrainingArguments) for field in fields(kind)} - {"hub_token"}
    known |= {*vars(GenerationConfig()), *vars(LlamaConfig()), *vars(BitsAndBytesConfig())}
    assert not [name for name in known if holds_secret(name, "word") or holds_secret(name, 1)]


@pytest.mark.parametrize(
    "fields",
    [
        {"pad_token": "word"},
        {"eos_token": "</s>", "new_token": "<new>", "token": "[CLS]"},
        {"tokens": [1, 2], "token": 5, "max_tokens": 5},
        {"use_auth_token": True, "token": None},
        {"key": "value", "tokenizer": "x", "keys": ["a"], "passwords_seen": "no"},
        {"alora_invocation_tokens": [4, 5], "target_modules": ["k_proj"], "metric_key": "loss"},
    ],
)
def test_other_settings_pass(fields):
    assert find_secret(fields) is None


@pytest.mark.parametrize("name", ["apiKey", "API_KEY", "HF-TOKEN", "AWS_SECRET_ACCESS_KEY", "db.password"])
def test_a_name_may_be_spelled_in_any_way(name):
    assert find_secret({"a": [{name: VALUE}]}) == f"a.0.{name}"


@pytest.mark.parametrize("text", ["https://me:pass@host/file", "hf_" + "a" * 34, "ghp_" + "B" * 36])
def test_some_texts_are_secrets_by_themselves(text):
    assert is_secret(text)
    assert "..." in without_secret(f"corpus.path={text}")
    assert text not in without_secret(f"corpus.path={text}")


def test_a_message_keeps_a_harmless_override():
    assert without_secret("distil.training.optim_args=a=1") == "distil.training.optim_args=a=1"
    assert without_secret("nonsense") == "nonsense"
    assert without_secret("distil.training.hub_token=x") == "distil.training.hub_token=..."
