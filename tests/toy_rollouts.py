"""Toy trainings of whose samples the student writes some itself."""

import gzip
import json

import pytest

from potstill import Loss, OnPolicy
from tiny import gpt2, llama, tokenizer
from toy_training import Killed, assert_equal, samples, trainer, weights

KL = (Loss("reverse_kl"), Loss("cross_entropy", weight=0.5))


def on_policy(**given):
    return OnPolicy(**{"max_new_tokens": 6, "preflight": "off", **given})


def made(folder, student=None, **given):
    both = {"teacher": llama(), "losses": KL, "train_dataset": samples(8), "processing_class": tokenizer()}
    return trainer(folder, student or gpt2(seed=1, layers=2), **{**both, **given})


def still():
    """A student without dropout."""
    return llama(seed=1, layers=2)


def logged(one, *names):
    return [{name: entry.get(name) for name in names} for entry in one.state.log_history if "loss" in entry]


def ends_as_without_a_kill(folder, make, other):
    """Fails unless a training that writes, is killed and goes on ends in the weights of one that is not killed.

    Args:
        folder: for both.
        make: makes the training in a folder, of the settings of written samples and more arguments.
        other: another student, whose weights are replaced by those of the checkpoint.
    """
    learning = {"optim": "adamw_torch", "learning_rate": 1e-2, "per_device_train_batch_size": 4}
    learning |= {"save_strategy": "steps", "save_steps": 3, "max_steps": 6, "train_sampling_strategy": "random"}
    given = {"settings": {"share": 0.5, "refresh_every": 2}, **learning}
    whole = make(folder / "whole", **given)
    whole.train()
    with pytest.raises(RuntimeError, match="killed"):
        make(folder / "cut", callbacks=[Killed()], **given).train()
    again = make(folder / "cut", student=other, **given)
    again.train(resume_from_checkpoint=str(folder / "cut" / "checkpoint-3"))
    assert_equal(weights(again.model), weights(whole.model))


def written(folder):
    return [json.loads(line) for line in gzip.decompress((folder / "rollouts.jsonl.gz").read_bytes()).splitlines()]
