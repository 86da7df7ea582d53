"""What each rank of two runs, `torchrun --nproc_per_node=2 ranks.py FOLDER`, and one process alone; rank 0 saves."""

import os
import sys
from pathlib import Path

import torch

from potstill import HiddenLoss, Loss
from potstill.words import IGNORE_INDEX
from tiny import gpt2, llama
from toy_training import captured, samples, trainer, weights


def silent(rows):
    """Samples whose every fourth one teaches nothing: a micro-batch of one rank has no supervised token."""
    mute = [{**row, "labels": [IGNORE_INDEX] * len(row["labels"])} for row in rows]
    return [mute[n] if n % 8 < 2 else row for n, row in enumerate(rows)]


def still_gpt2():
    return gpt2(seed=1, layers=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)


def cases(folder: Path, ranks: int):
    """By name: the arguments of a training, in which a step has 8 samples whatever the number of ranks."""
    rows = samples(16, seed=7)
    size = {"train_dataset": rows, "per_device_train_batch_size": 8 // ranks}
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4 // ranks}
    store = captured(folder / f"store-{os.environ.get('RANK', 'alone')}", llama(), rows)
    return {
        "plain": {"teacher": llama(), **size},
        "accumulated": {"teacher": llama(), **size, **cut},
        "silent": {"teacher": llama(), **size, **cut, "train_dataset": silent(rows)},
        "tied": {"teacher": llama(), "student": still_gpt2(), **size},
        "captured": {"teacher": store, **size},
        "matched": {
            "teacher": llama(hidden_size=48),
            **size,
            **cut,
            "train_dataset": silent(rows),
            "losses": [HiddenLoss(layers=[(0, 1)]), Loss("forward_kl")],
        },
        "matched alone": {"teacher": llama(hidden_size=48), **size, **cut, "losses": [HiddenLoss(layers=[(0, 1)])]},
        "shuffled": {"teacher": llama(), **size, "train_sampling_strategy": "random", "max_steps": 5},
    }


def run(folder: Path, ranks: int):
    """By name: the weights after training, and what was logged of it."""
    found = {}
    for name, given in cases(folder, ranks).items():
        backend = {"ddp_backend": "gloo", "ddp_find_unused_parameters": False} if ranks > 1 else {}
        one = trainer(folder / "trainer", **backend, **given)
        one.train()
        logged = [
            {key: entry[key] for key in ("loss", "forward_kl", "hidden_match") if key in entry}
            for entry in one.state.log_history
            if "loss" in entry
        ]
        projectors = {} if one._matching is None else weights(one._matching)
        found[name] = {**weights(one.model), **projectors}, logged
    return found


if __name__ == "__main__":
    result = run(Path(sys.argv[1]), ranks=2)
    if os.environ["RANK"] == "0":
        torch.save(result, Path(sys.argv[1]) / "two-ranks.pt")
