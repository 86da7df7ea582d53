"""A killed and resumed training equals an uninterrupted one bit for bit, in weights and in the log."""

import json

import pytest
from transformers import AutoModelForCausalLM, TrainerCallback

from tiny import gpt2, gpt_neox, llama, mixture
from toy_training import Killed, assert_equal, captured, samples, trainer, weights

LEARNING = {"optim": "adamw_torch", "learning_rate": 1e-2, "max_grad_norm": 1.0, "lr_scheduler_type": "cosine"}
SAVING = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6, "train_sampling_strategy": "random"}


def _student():
    # Dropout draws random numbers in every step: they too must go on where they were.
    return gpt2(seed=1, layers=2)


def _logged(one):
    kept = ("step", "loss", "forward_kl", "cross_entropy", "learning_rate", "grad_norm")
    return [{name: entry[name] for name in kept} for entry in one.state.log_history if "loss" in entry]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"bf16": True},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
        {"gradient_checkpointing": True, "dataloader_num_workers": 1},
    ],
    ids=["plain", "bf16", "accumulated", "checkpointed"],
)
@pytest.mark.parametrize("online", [True, False], ids=["online", "captured"])
def test_a_killed_training_continues_to_the_same_weights(tmp_path, given, online):
    # 10 samples in batches of 4: the third checkpoint lies at the end of an epoch or within one.
    rows = samples(10, seed=4)
    teacher = llama() if online else captured(tmp_path / "store", llama(), rows)
    both = {"teacher": teacher, "train_dataset": rows, "per_device_train_batch_size": 4, **LEARNING, **SAVING, **given}
    whole = trainer(tmp_path / "whole", _student(), **both)
    whole.train()
    with pytest.raises(RuntimeError, match="killed"):
        trainer(tmp_path / "cut", _student(), callbacks=[Killed()], **both).train()
    # A fresh process has other weights and other random numbers until the checkpoint is read.
    again = trainer(tmp_path / "cut", gpt2(seed=77, layers=2), **both)
    again.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-3"))
    assert_equal(weights(again.model), weights(whole.model))
    assert _logged(again) == _logged(whole)


@pytest.mark.parametrize("family", [gpt_neox, mixture], ids=["renamed head", "split experts"])
def test_weights_with_other_names_on_disk_continue_too(tmp_path, family):
    both = {"teacher": llama(), "train_dataset": samples(10, seed=4), **LEARNING, **SAVING}
    whole = trainer(tmp_path / "whole", family(seed=1), **both)
    whole.train()
    again = trainer(tmp_path / "whole", family(seed=77), **both)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert_equal(weights(again.model), weights(whole.model))
    assert _logged(again) == _logged(whole)


@pytest.mark.parametrize("family", [gpt_neox, mixture], ids=["renamed head", "split experts"])
def test_the_best_weights_with_other_names_on_disk_are_loaded(tmp_path, family):
    # The learning rate rises so steeply that later weights are worse.
    best = {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "load_best_model_at_end": True}
    rate = {"learning_rate": 10.0, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 1000}
    rate |= {"max_steps": 3, "eval_dataset": samples(4, seed=9), "save_strategy": "steps"}
    one = trainer(tmp_path, family(seed=1), teacher=llama(), train_dataset=samples(10), **LEARNING | best | rate)
    kept: dict = {}

    class _Keep(TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            kept[state.global_step] = {name: one.clone() for name, one in weights(model).items()}

    one.add_callback(_Keep())
    one.train()
    assert one.state.best_global_step < 3
    assert_equal(weights(one.model), kept[one.state.best_global_step])
    # What users get has the published names.
    one.save_model(str(tmp_path / "student"))
    assert_equal(weights(AutoModelForCausalLM.from_pretrained(tmp_path / "student")), weights(one.model))


def test_a_checkpoint_that_lacks_weights_stops_the_training(tmp_path):
    both = {"teacher": llama(), "train_dataset": samples(10), **LEARNING, **SAVING}
    trainer(tmp_path, llama(layers=2), **both).train()
    with pytest.raises(AssertionError, match=r"layers\.2"):
        trainer(tmp_path, llama(layers=3), **both).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


def test_resuming_at_the_last_step_trains_no_more(tmp_path):
    both = {"teacher": llama(), "train_dataset": samples(10), **LEARNING, **SAVING}
    whole = trainer(tmp_path, _student(), **both)
    whole.train()
    again = trainer(tmp_path, gpt2(seed=77, layers=2), **both)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert_equal(weights(again.model), weights(whole.model))
    assert _logged(again) == _logged(whole)


def test_a_resumed_log_is_the_mean_of_the_steps_since(tmp_path):
    # Every fifth step is logged, and the checkpoint lies at the third.
    both = {"teacher": llama(), "train_dataset": samples(24), **LEARNING, **SAVING}
    whole = trainer(tmp_path / "each", _student(), **both)
    whole.train()
    each = [entry["forward_kl"] for entry in _logged(whole)]
    for folder, checkpoint in (("fifth", None), ("fifth", tmp_path / "fifth" / "checkpoint-3")):
        one = trainer(tmp_path / folder, _student(), logging_steps=5, **both)
        one.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    (entry,) = _logged(one)
    assert entry["step"] == 5
    assert entry["forward_kl"] == pytest.approx(sum(each[3:5]) / 2, rel=1e-5)


def test_a_checkpoint_holds_the_trainer_s_state_last(tmp_path):
    # What `last_whole_checkpoint` of the stages relies on: a folder that has the state has everything.
    one = trainer(tmp_path, teacher=llama(), **LEARNING, **SAVING)
    one.train()
    folder = tmp_path / "checkpoint-6"
    newest = max(folder.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    assert newest.name == "trainer_state.json"
    assert json.loads(newest.read_text())["global_step"] == 6
