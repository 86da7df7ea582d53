"""Every field of transformers' TrainingArguments has a decision: the values that it takes, or why it is refused."""

import math
from dataclasses import fields
from typing import get_args, get_type_hints

import pytest
from transformers import TrainingArguments
from transformers.utils.logging import log_levels

import minimal
from potstill.errors import UserError
from potstill.recipe.training_fields import NEEDS, PUBLISHES, REFUSED, LogLevel, TrainingFields, without_effect

KNOWN = {field.name for field in fields(TrainingArguments) if field.init}
TYPES = get_type_hints(TrainingFields)
NUMBERS = [
    name
    for name, kind in get_type_hints(TrainingArguments).items()
    if name in TYPES and {int, float} & {kind, *get_args(kind)}
]
SECTIONS = ("distil", "control", "search", "pretrain.p")


def refusal(folder, field, value, section="distil"):
    with pytest.raises(UserError) as error:
        minimal.recipe(folder, f"{section}.training.{field}={value}")
    sentence = str(error.value)
    assert f"`{section}.training.{field}" in sentence
    assert "\n" not in sentence
    return sentence


def test_every_field_that_there_is_has_one_decision():
    published = {name for name in KNOWN if PUBLISHES.match(name)}
    assert TYPES.keys() | REFUSED.keys() | published == KNOWN
    assert not TYPES.keys() & REFUSED.keys()
    assert NEEDS.keys() <= TYPES.keys()
    assert {*get_args(LogLevel)} == {*log_levels, "passive"}


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "'3'", "true", "-2", "[1]", "{}", "some"])
def test_no_number_takes_these(tmp_path, field, value):
    refusal(tmp_path, field, value)


@pytest.mark.parametrize("field", [name for name, kind in TYPES.items() if bool in {kind, *get_args(kind)}])
@pytest.mark.parametrize("value", ["'yes'", "1", "0", "'true'", "[true]"])
def test_a_switch_is_true_or_false(tmp_path, field, value):
    refusal(tmp_path, field, value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_steps", "0"),
        ("max_steps", "2.5"),
        ("num_train_epochs", "0"),
        ("learning_rate", "0"),
        ("learning_rate", "'5e-4'"),
        ("per_device_train_batch_size", "0"),
        ("per_device_eval_batch_size", "0"),
        ("gradient_accumulation_steps", "0"),
        ("adam_beta1", "5"),
        ("adam_beta2", "1"),
        ("adam_epsilon", "0"),
        ("warmup_steps", "2.5"),
        ("save_steps", "0"),
        ("save_steps", "1.5"),
        ("logging_steps", "0"),
        ("save_total_limit", "0"),
        ("save_strategy", "best"),
        ("dataloader_num_workers", "1000000000"),
        ("train_sampling_strategy", "sorted"),
        ("log_level", "loud"),
        ("accelerator_config", "{split_batches: true}"),
        ("accelerator_config", "{even_batches: true}"),
        ("accelerator_config", "{dispatch_batches: true}"),
        ("accelerator_config", "{non_blocking: 'no'}"),
        ("lr_scheduler_kwargs", "'{}'"),
        ("report_to", "true"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(tmp_path, field, value):
    refusal(tmp_path, field, value)


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("learning_rate", "-1", "must be greater than 0, not -1"),
        ("learning_rate", "'5e-4'", "must be a number, not '5e-4'"),
        ("bf16", "'yes'", "must be true or false, not 'yes'"),
        ("learning_rat", "1", "is no field of TrainingArguments; did you mean `learning_rate`?"),
        ("warmup_ratio", "1", "is no field of TrainingArguments; "),
        ("do_eval", "true", "must not be set, because only transformers' own scripts read it; remove it"),
    ],
)
def test_every_training_of_a_recipe_is_read_by_the_same_rules(tmp_path, section, field, value, said):
    with pytest.raises(UserError) as error:
        minimal.recipe(
            tmp_path,
            "search={temperatures: [2]}",
            "pretrain.p={config: {model_type: llama}}",
            f"{section}.training.{field}={value}",
        )
    assert f"`{section}.training.{field}`: {said}" in str(error.value)


def test_the_values_stay_as_the_recipe_has_them(tmp_path):
    given = "{num_train_epochs: 3, learning_rate: 1e-3, warmup_steps: 0.1, save_steps: 1e2, max_steps: -1, tf32: null}"
    training = minimal.recipe(tmp_path, f"distil.training={given}").distil.training
    assert training["num_train_epochs"] == 3
    assert isinstance(training["num_train_epochs"], int)
    assert isinstance(training["save_steps"], int)
    assert math.isclose(training["warmup_steps"], 0.1)


@pytest.mark.parametrize(
    "training",
    [
        {"activation_checkpointing_kwargs": {"use_reentrant": True}},
        {"torch_compile_mode": "default"},
        {"logging_steps": 5, "logging_strategy": "epoch"},
        {"save_steps": 5, "save_strategy": "epoch"},
        {"run_name": "x"},
        {"run_name": "x", "report_to": "none"},
        {"project": "x", "report_to": ["wandb"]},
        {"dataloader_prefetch_factor": 2},
        {"dataloader_persistent_workers": True, "dataloader_num_workers": 0},
        {"warmup_steps": 5, "lr_scheduler_type": "constant"},
    ],
    ids=lambda training: next(iter(training)),
)
def test_a_field_whose_switch_is_off_has_no_effect(training):
    assert without_effect(training)[0] == next(iter(training))


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
        {"torch_compile_mode": "default", "torch_compile": True},
        {"logging_steps": 5, "save_steps": 5, "save_total_limit": 1},
        {"save_total_limit": 5, "save_steps": 5, "save_strategy": "no"},
        {"run_name": "x", "project": "y", "report_to": ["wandb", "trackio"]},
        {"dataloader_prefetch_factor": 2, "dataloader_num_workers": 1},
        {"dataloader_prefetch_factor": None, "warmup_steps": 0, "lr_scheduler_type": "constant"},
    ],
)
def test_a_field_whose_switch_is_on_has_one(training):
    assert without_effect(training) is None


def test_the_old_name_of_a_field_beside_the_new_one_is_refused(tmp_path):
    given = "{activation_checkpointing: true, gradient_checkpointing: false}"
    with pytest.raises(UserError, match=r"`distil.training.gradient_checkpointing`: is the old name"):
        minimal.recipe(tmp_path, f"distil.training={given}")
