"""What each rank of two runs, `torchrun --nproc_per_node=2 ranks.py FOLDER`, and one process alone; rank 0 saves."""

import os
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from datasets import Dataset
from torch.distributed.tensor import DTensor

from potstill import DistilTrainer, HiddenLoss, Loss
from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError
from tiny import gpt2, llama, mixture
from toy_training import captured, samples, trainer, weights


def silent(rows):
    """Samples whose every fourth one teaches nothing: a micro-batch of one rank has no supervised token."""
    mute = [{**row, "labels": [IGNORE_INDEX] * len(row["labels"])} for row in rows]
    return [mute[n] if n % 8 < 2 else row for n, row in enumerate(rows)]


def streamed(rows):
    return Dataset.from_list(rows).to_iterable_dataset()


def refusal(one: DistilTrainer):
    """What the trainer says of streamed evaluation samples."""
    try:
        one.evaluate(streamed(samples(3)))
    except UserError as error:
        return str(error)
    return ""


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
        "sharded": {"teacher": llama(), **size, **cut, "train_dataset": silent(rows)},
        "sharded and tied": {"teacher": llama(), "student": still_gpt2(), **size},
        "streamed": {"teacher": llama(), **size, "train_dataset": streamed(rows)},
        "mixture": {"teacher": llama(), "student": mixture(), **size, **cut, "train_dataset": silent(rows)},
        "shuffled": {"teacher": llama(), **size, "train_sampling_strategy": "random", "max_steps": 5},
    }


def whole(weights):
    """What every rank holds a part of, put together."""
    return {name: one.full_tensor() if isinstance(one, DTensor) else one for name, one in weights.items()}


@contextmanager
def sharded(one: DistilTrainer, layer: str):
    """Have accelerate prepare a trainer's student by FSDP2, as it does on GPUs; on a CPU it would take DDP."""
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=[layer],
        cpu_ram_efficient_loading=False,
    )
    state = AcceleratorState._shared_state
    before = dict(state)
    state.update(distributed_type=DistributedType.FSDP, fsdp_plugin=plugin)
    one.is_fsdp_enabled = True
    yield
    assert all(isinstance(weight, DTensor) for weight in one.model.parameters())
    state.clear()
    state.update(before)


EVALUATED = (1, 2, 7, 12)
"""Numbers of samples, most of which the ranks cannot share out evenly."""


def evaluations(one: DistilTrainer):
    """The evaluation loss of different numbers of samples, before them one that teaches nothing."""
    rows = [silent(samples(1))[0], *samples(max(EVALUATED), seed=8)]
    return [one.evaluate(rows[: count + 1])["eval_loss"] for count in EVALUATED]


def run(folder: Path, ranks: int):
    """By name: the weights after training, and what was logged of it; and the losses of evaluations."""
    found = {}
    for name, given in cases(folder, ranks).items():
        backend = {"ddp_backend": "gloo", "ddp_find_unused_parameters": False} if ranks > 1 else {}
        one = trainer(folder / "trainer", per_device_eval_batch_size=2, **backend, **given)
        layer = type((one.model.model.layers if hasattr(one.model, "model") else one.model.transformer.h)[0]).__name__
        with sharded(one, layer) if ranks > 1 and name.startswith("sharded") else nullcontext():
            one.train()
        if name == "plain":
            found["evaluated"], found["refused"] = evaluations(one), refusal(one)
        logged = [
            {key: entry[key] for key in ("loss", "forward_kl", "hidden_match", "router_loss") if key in entry}
            for entry in one.state.log_history
            if "loss" in entry
        ]
        projectors = {} if one._matching is None else weights(one._matching)
        found[name] = {**whole(weights(one.model)), **projectors}, logged
    return found


if __name__ == "__main__":
    result = run(Path(sys.argv[1]), ranks=2)
    if os.environ["RANK"] == "0":
        torch.save(result, Path(sys.argv[1]) / "two-ranks.pt")
