"""Settings that other settings make meaningless, and a control that would read other samples than its student."""

import pytest

import minimal
from potstill.errors import UserError

TWO = "teachers.u={model: teacher}"


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["teachers.t.weight=2"], "teachers.t.weight"),
        (["tokenizer={vocab_size: 300}", "capture.k=301"], "capture.k"),
        (["distil.training.per_device_eval_batch_size=2"], "distil.training.per_device_eval_batch_size"),
        (["control.training.per_device_eval_batch_size=2"], "control.training.per_device_eval_batch_size"),
        (
            [
                "pretrain.p={config: {model_type: llama}, training: {per_device_eval_batch_size: 2}}",
                "teachers.t.weight=1",
            ],
            "pretrain.p.training.per_device_eval_batch_size",
        ),
        (
            ["distil.snapshots=3", "corpus.validation=2", "select={average: {last: 4}}"],
            "select.average.last",
        ),
        (
            ["distil.snapshots=3", "corpus.validation=2", "select={average: {best: 4}}"],
            "select.average.best",
        ),
    ],
)
def test_a_setting_without_effect_is_refused(tmp_path, overrides, key):
    with pytest.raises(UserError, match=rf"`{key}` (has no effect|is 4|is 301)"):
        minimal.recipe(tmp_path, *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        [TWO, "teachers.t.weight=2"],
        ["distil.mix=logits", "capture=null"],
        ["distil.keep=best", "corpus.validation=2", "distil.training.per_device_eval_batch_size=2"],
        ["distil.snapshots=4", "corpus.validation=2", "select={average: {last: 4}}"],
        ["distil.snapshots={every: 2}", "corpus.validation=2", "select={average: {last: 4}}"],
    ],
)
def test_a_setting_with_an_effect_is_taken(tmp_path, overrides):
    minimal.recipe(tmp_path, *overrides)


@pytest.mark.parametrize(
    "field",
    [
        "max_steps=2",
        "max_steps=-1",
        "num_train_epochs=9",
        "per_device_train_batch_size=3",
        "gradient_accumulation_steps=3",
        "train_sampling_strategy=sequential",
        "dataloader_drop_last=true",
    ],
)
def test_a_control_reads_the_samples_of_its_student(tmp_path, field):
    with pytest.raises(UserError, match=f"`control.training.{field.partition('=')[0]}` is not that of"):
        minimal.recipe(tmp_path, f"control.training.{field}")


@pytest.mark.parametrize(
    "control",
    [
        "{learning_rate: 1e-3, warmup_steps: 3}",
        "{max_steps: 1}",
        "{per_device_train_batch_size: 2, gradient_accumulation_steps: 4}",
    ],
)
def test_a_control_may_differ_in_everything_else(tmp_path, control):
    assert minimal.recipe(tmp_path, f"control.training={control}").control.training
