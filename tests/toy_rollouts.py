"""Toy trainings of whose samples the student writes some itself."""

import gzip
import json

from potstill import Loss, OnPolicy
from tiny import gpt2, llama, tokenizer
from toy_training import samples, trainer

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


def written(folder):
    return [json.loads(line) for line in gzip.decompress((folder / "rollouts.jsonl.gz").read_bytes()).splitlines()]
