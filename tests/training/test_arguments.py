import pytest
import torch
from transformers import Trainer

from potstill.errors import UserError
from potstill.training import arguments
from potstill.training.arguments import check_training, training_arguments


def _arguments(tmp_path, **training):
    return training_arguments(training, "distil.training", tmp_path, seed=7)


def refusal(keep="last", **training):
    with pytest.raises(UserError, match=r"`distil.training") as error:
        check_training(training, "distil.training", seed=0, keep=keep)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_fields_pass_straight_through(tmp_path):
    made = _arguments(tmp_path, max_steps=5, learning_rate=1e-4, per_device_train_batch_size=3, logging_steps=2)
    assert (made.max_steps, made.learning_rate, made.per_device_train_batch_size, made.logging_steps) == (5, 1e-4, 3, 2)


@pytest.mark.parametrize(("kind", "pinned", "workers"), [("cuda", True, 2), ("cpu", False, 0)])
def test_samples_are_read_beside_the_training_of_a_gpu(tmp_path, monkeypatch, kind, pinned, workers):
    monkeypatch.setattr(arguments, "device", lambda: torch.device(kind))
    made = _arguments(tmp_path)
    assert (made.dataloader_pin_memory, made.dataloader_num_workers) == (pinned, workers)
    made = _arguments(tmp_path, dataloader_pin_memory=False, dataloader_num_workers=1)
    assert (made.dataloader_pin_memory, made.dataloader_num_workers) == (False, 1), "the recipe is heard"


def test_what_the_project_needs_is_set(tmp_path):
    made = _arguments(tmp_path)
    assert made.seed == 7
    assert made.output_dir == str(tmp_path)
    assert made.remove_unused_columns is False, "captured targets travel in the batch"
    assert made.logging_nan_inf_filter is False, "a loss that is no number must be seen"
    assert made.report_to == []


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("lr_scheduler_type", "cosin", "did you mean `cosine`?"),
        ("lr_scheduler_type", "wavy", "choose one of linear, cosine"),
        ("optim", "adamw_tor", "did you mean `adamw_torch`?"),
        ("report_to", "wandbb", "did you mean `wandb`?"),
        ("report_to", ["tensorbord"], "did you mean `tensorboard`?"),
    ],
)
def test_a_misspelt_name_gets_a_suggestion(field, value, said):
    assert said in refusal(**{field: value})


@pytest.mark.parametrize("tracker", ["wandb", ["tensorboard", "mlflow"]])
def test_a_tracker_that_is_not_installed_is_refused(monkeypatch, tracker):
    monkeypatch.setattr(arguments, "get_available_reporting_integrations", lambda: ["tensorboard"])
    assert "not installed here" in refusal(report_to=tracker)
    check_training({"report_to": "tensorboard"}, "distil.training", seed=0)


@pytest.mark.parametrize(
    "training",
    [
        {"bf16": True, "fp16": True},
        {"deepspeed": "no-such-file.json"},
        {"optim": "adamw_apex_fused"},
        {"lr_scheduler_type": "reduce_lr_on_plateau"},
    ],
    ids=lambda training: next(iter(training)),
)
def test_what_would_stop_a_training_at_its_start_is_refused(training):
    refusal(**training)


def test_a_number_format_that_the_device_lacks_is_refused(monkeypatch):
    monkeypatch.setattr(arguments, "device", lambda: torch.device("cpu"))
    assert "`distil.training.fp16` needs an accelerator" in refusal(fp16=True)


def test_a_compiler_that_fails_is_told(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no C++ compiler\nand more")

    monkeypatch.setattr(torch, "compile", fail)
    assert "does not work on this machine (no C++ compiler)" in refusal(torch_compile=True)


@pytest.mark.parametrize(
    "training",
    [
        {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 1}},
        {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycle": 1}},
        {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": "two"}},
        {"lr_scheduler_type": "cosine_with_min_lr"},
        {"lr_scheduler_type": "warmup_stable_decay"},
        {"lr_scheduler_kwargs": {"num_cycles": 1}},
    ],
    ids=lambda training: str(training.get("lr_scheduler_type")),
)
def test_a_schedule_is_tried_with_its_own_settings(training):
    assert "lr_scheduler_kwargs` is" in refusal(**training)


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"bf16": True, "max_steps": 3, "warmup_steps": 5},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
        {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 10}},
        {"adam_beta1": 0.8, "adam_beta2": 0.5, "optim": "adamw_torch"},
        {"optim": "adafactor", "save_strategy": "epoch"},
    ],
)
def test_what_works_is_taken(training):
    check_training(training, "distil.training", seed=0)
    check_training(training, "distil.training", seed=0, keep="best")


def test_the_best_weights_need_a_save_to_choose_from():
    assert "saves nothing to choose from" in refusal(save_strategy="no", keep="best")


@pytest.mark.parametrize("field", ["adam_beta1", "adam_beta2", "adam_epsilon"])
def test_a_setting_of_another_optimizer_is_refused(field):
    assert "because the optimizer 'sgd' does not read it" in refusal(**{field: 0.25, "optim": "sgd"})


def test_a_field_without_effect_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"`distil.training.save_steps` has no effect, because it needs `save_strategy"):
        _arguments(tmp_path, save_steps=5, save_strategy="epoch")


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
        ("sgd", "momentum=-1"),
    ],
)
def test_what_the_optimizer_would_not_look_at_is_refused(optim, given):
    assert "`distil.training.optim_args`" in refusal(optim=optim, optim_args=given)
