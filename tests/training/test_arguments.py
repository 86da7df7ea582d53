import pytest
import torch
from transformers import Trainer

from potstill.errors import UserError
from potstill.training.arguments import training_arguments


def _arguments(tmp_path, **training):
    return training_arguments(training, "distil.training", tmp_path, seed=7)


def test_fields_pass_straight_through(tmp_path):
    made = _arguments(tmp_path, max_steps=5, learning_rate=1e-4, per_device_train_batch_size=3, logging_steps=2)
    assert (made.max_steps, made.learning_rate, made.per_device_train_batch_size, made.logging_steps) == (5, 1e-4, 3, 2)


def test_what_the_project_needs_is_set(tmp_path):
    made = _arguments(tmp_path)
    assert made.seed == 7
    assert made.output_dir == str(tmp_path)
    assert made.remove_unused_columns is False, "captured targets travel in the batch"
    assert made.logging_nan_inf_filter is False, "a loss that is no number must be seen"
    assert made.report_to == []


def test_an_unknown_field_is_refused_with_the_nearest_one(tmp_path):
    with pytest.raises(UserError, match=r"`distil.training.learning_rat` .*did you mean `learning_rate`"):
        _arguments(tmp_path, learning_rat=1e-3)
    with pytest.raises(UserError, match=r"`distil.training.zzz` is no field"):
        _arguments(tmp_path, zzz=1)


@pytest.mark.parametrize(
    "training",
    [{"lr_scheduler_type": "wavy"}, {"optim": "no_such"}, {"bf16": True, "fp16": True}],
    ids=lambda training: next(iter(training)),
)
def test_a_value_that_transformers_refuses_is_one_sentence(tmp_path, training):
    with pytest.raises(UserError, match=r"`distil.training`") as error:
        _arguments(tmp_path, **training)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "value"), [("max_steps", "many"), ("learning_rate", None), ("bf16", 7)])
def test_a_word_where_a_number_belongs_is_refused_at_once(tmp_path, name, value):
    with pytest.raises(UserError, match=rf"`distil.training.{name}` is {value!r}"):
        _arguments(tmp_path, **{name: value})


def test_momentum_reaches_the_optimizer(tmp_path):
    made = _arguments(tmp_path, optim="sgd", optim_args="momentum=0.9", learning_rate=5e-6, lr_scheduler_type="cosine")
    kind, given = Trainer.get_optimizer_cls_and_kwargs(made)
    assert kind is torch.optim.SGD
    assert given == {"lr": 5e-6, "momentum": 0.9}


@pytest.mark.parametrize(
    ("optim", "given"),
    [
        ("sgd", "momentun=0.9"),
        ("sgd", "momentum=0.9, beta=3"),
        ("adamw_torch", "momentum=0.9"),
        ("sgd", "momentum"),
        ("sgd", "momentum=much"),
    ],
)
def test_what_the_optimizer_would_not_look_at_is_refused(tmp_path, optim, given):
    with pytest.raises(UserError, match=r"`distil.training.optim_args`") as error:
        _arguments(tmp_path, optim=optim, optim_args=given)
    assert "\n" not in str(error.value)
