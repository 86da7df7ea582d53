"""What each rank of two runs, `processes.run_ranks(2, ranks.py, FOLDER)`, and one process alone; rank 0 saves."""

import gc
import os
import sys
from copy import deepcopy
from functools import partial
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from torch.distributed.tensor import DTensor

import tiny
import toy_turns
from potstill import DistilTrainer, HiddenLoss, Loss, OnPolicy, TargetStore
from potstill.data.labels import IGNORE_INDEX
from potstill.data.token_bytes import TokenBytes
from potstill.errors import UserError
from tiny import documents, gpt2, mixture, tokenizer
from tokenizer_zoo import folding, unfolded
from tokenizer_zoo import trained as other_tokenizer
from toy_training import (
    captured,
    captured_spans,
    packed_rows,
    prompted,
    rows_of_texts,
    samples,
    teacher_of_other_tokens,
    trainer,
    weights,
)

llama = partial(tiny.llama, layers=2)
"""Each layer of a teacher that is sharded costs time in each step of each training. Two are as split as many."""


def silent(rows):
    """Samples whose every fourth one teaches nothing: a micro-batch of one rank has no supervised token."""
    mute = [{**row, "labels": [IGNORE_INDEX] * len(row["labels"])} for row in rows]
    return [mute[n] if n % 8 < 2 else row for n, row in enumerate(rows)]


def named(rows):
    """Samples of two teachers, of both and of none: in some batches of a rank, a teacher has nothing to read."""
    kinds = (["maths"], [], ["chat"], ["maths", "chat"])
    return [{**row, "teachers": kinds[n // 2 % 4]} for n, row in enumerate(rows)]


def table(rows):
    return Dataset.from_list(rows)


def streamed(rows):
    return table(rows).to_iterable_dataset()


def refusal(one: DistilTrainer):
    """What the trainer says of streamed evaluation samples."""
    try:
        one.evaluate(streamed(samples(3)))
    except UserError as error:
        return str(error)
    return ""


def still_gpt2():
    return gpt2(seed=1, layers=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)


def spans(folder: Path):
    """A captured teacher of another tokenizer, and samples that do not fill the last batches of all ranks."""
    texts = documents(11, seed=5)
    store = captured_spans(folder, texts)
    losses = [Loss("alm", 0.7), Loss("cross_entropy", 0.3)]
    student = llama(seed=1, max_position_embeddings=512)
    own = {"processing_class": tokenizer(), "student": student, "losses": losses, "train_dataset": rows_of_texts(texts)}
    return {"teacher": store, **own, **EPOCHS}


def across_tokenizers():
    """A teacher of another tokenizer, and texts of which some teach nothing."""
    found = TokenBytes(tokenizer(), "tiny").read(unfolded(16, seed=5))
    rows = [{"input_ids": (ids := [0, *one.ids.tolist()][: 20 + 6 * n]), "labels": ids} for n, one in enumerate(found)]
    return {
        "teacher": teacher_of_other_tokens(),
        "teacher_tokenizer": other_tokenizer(),
        "processing_class": tokenizer(),
        "losses": [Loss("alm", 0.7), Loss("uld", 0.1), Loss("shared_tokens", 0.2), Loss("cross_entropy", 0.3)],
        "train_dataset": silent(rows),
    }


def across_tokenizers_by_row():
    """Two teachers of other tokenizers, each with its rows."""
    given = across_tokenizers()
    teachers = {"maths": given["teacher"], "chat": llama(seed=4, vocab_size=300, max_position_embeddings=512)}
    theirs = [given["teacher_tokenizer"], folding()]
    return {**given, "teacher": teachers, "teacher_tokenizer": theirs, "train_dataset": named(given["train_dataset"])}


def writes_words(student):
    """The same student, which mostly writes tokens of several bytes: single bytes at random are seldom text."""
    words = [n for n, one in enumerate(TokenBytes(toy_turns.student_tokenizer(), "the student").each) if len(one) > 1]
    with torch.no_grad():
        student.get_output_embeddings().weight[words] *= 3
    return student


def cases(folder: Path, ranks: int):
    """By name: the arguments of a training, in which a step has 8 samples whatever the number of ranks."""
    rows = samples(16, seed=7)
    size = {"train_dataset": rows, "per_device_train_batch_size": 8 // ranks}
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4 // ranks}
    stores = folder / os.environ.get("RANK", "alone")
    store = captured(stores / "one", llama(), rows)
    stores_of_two = [store, captured(stores / "two", llama(seed=3), rows, revision="two")]
    packed = packed_rows([row["input_ids"] for row in samples(40, seed=9)])[0]
    adapter = {"peft_config": LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights="gaussian")}
    turns, few_turns = ({**toy_turns.by_row(count), "student": toy_turns.student()} for count in (16, 11))
    online, of_stores_too = {"teacher": llama(), **size}, {"maths": store, "chat": llama()}
    of_both = {
        "online": online,
        "accumulated": {**online, **cut},
        "silent": {**online, **cut, "train_dataset": silent(rows)},
        "tied": {**online, "student": still_gpt2(), "teacher": gpt2(seed=4, layers=2)},
        # In bf16 the last bits of a sample depend on its batch. With `cut`, one rank reads the same batches of two
        # samples as two ranks do. They are rounded alike, so the tolerance of fp32 holds: weights differ by 1e-7. If
        # one side read its teacher in fp32, they would differ by 1e-4.
        "teacher in bf16": {**online, **cut, "teacher": llama().bfloat16()},
        "captured": {"teacher": store, **size},
        "several": {"teacher": [llama(), llama(seed=3)], "teacher_weights": [2, 1], **size},
        "several captured": {"teacher": stores_of_two, **size, **cut, "losses": [Loss("forward_kl", temperature=2.0)]},
        "adapter": {**online, **cut, **adapter},
        "packed": {**online, "train_dataset": packed},
        "clipped": {**online, "max_grad_norm": 0.1, "optim": "adamw_torch", "learning_rate": 0.001},
        "matched alone": {"teacher": llama(), **size, **cut, "losses": [HiddenLoss(layers=[(0, 1)])]},
        "mixture": {**online, **cut, "student": mixture(), "train_dataset": silent(rows)},
        **{f"ragged {count}": {**online, "train_dataset": rows[:count], **EPOCHS} for count in RAGGED},
        **{
            f"ragged and cut {n}": {**online, **cut, "train_dataset": Dataset.from_list(rows[:n]), **EPOCHS}
            for n in RAGGED
        },
        "ragged and captured": {"teacher": store, **size, "train_dataset": rows[:11], **EPOCHS},
        "ragged and prompted": {
            **online,
            "train_dataset": prompted(count=11, longest=60),
            "teacher": llama(max_position_embeddings=600),
            **EPOCHS,
        },
        "ragged and packed": {**online, "train_dataset": packed[:11], **EPOCHS},
        "by row": {**cut, "teacher": {"maths": llama(), "chat": llama(seed=3)}, "train_dataset": named(rows)},
        "ragged by row": {**size, **EPOCHS, "teacher": of_stores_too, "train_dataset": named(rows[:11])},
        "ragged and captured spans": {**size, **spans(stores / "spans")},
        "ragged stream": {**online, "train_dataset": streamed(rows[:11]), "max_steps": 4},
        "across tokenizers": {**size, **cut, **across_tokenizers()},
        "across tokenizers by row": {**size, **cut, **across_tokenizers_by_row()},
        "turns across tokenizers by row": {**size, **cut, **turns},
        "ragged and captured turns": {**size, **toy_turns.captured(stores / "turns", few_turns), **EPOCHS},
    }
    sharded = {f"{name}, sharded": {**given, "fsdp": True} for name, given in of_both.items()}
    return {
        **of_both,
        # One rank alone has nothing to split: its other trainings would be the same ones again.
        **(sharded if ranks > 1 else {}),
        "matched": {
            "teacher": llama(hidden_size=48),
            **size,
            **cut,
            "train_dataset": silent(rows),
            "losses": [HiddenLoss(layers=[(0, 1)]), Loss("forward_kl")],
        },
        "written": {
            **online,
            **cut,
            "processing_class": tokenizer(),
            "losses": [Loss("reverse_kl")],
            "on_policy": OnPolicy(share=1, max_new_tokens=6, preflight="off"),
        },
        "written turns across tokenizers": {
            **size,
            **cut,
            **toy_turns.by_row(16),
            "student": writes_words(toy_turns.student()),
            "conversations": {"learn": "last"},
            "on_policy": OnPolicy(share=1, max_new_tokens=24, preflight="off"),
        },
        "streamed": {**online, "train_dataset": streamed(rows)},
        "shuffled": {**online, "train_sampling_strategy": "random", "max_steps": 5},
    }


def whole(weights):
    """What every rank holds a part of, put together."""
    return {name: one.full_tensor() if isinstance(one, DTensor) else one for name, one in weights.items()}


LOGGED = ("loss", "forward_kl", "hidden_match", "router_loss")
LOGGED += ("forward_kl/maths", "tokens/maths", "tokens_without_teacher", "alm", "uld", "shared_tokens")
LOGGED += ("on_policy/reverse_kl", "on_policy/alm", "on_policy/lost_text", "on_policy/length", "on_policy/stopped")
LOGGED += ("on_policy/age", "on_policy/tokens")

RAGGED, EPOCHS = (3, 11), {"max_steps": -1, "num_train_epochs": 2}
"""Numbers of samples that do not fill the last batches of all ranks; and two passes over them."""

EVALUATED = (1, 2, 7, 12)
"""Numbers of samples, most of which the ranks cannot share out evenly."""


def evaluations(one: DistilTrainer):
    """The evaluation loss of different numbers of samples, before them one that teaches nothing."""
    rows = [silent(samples(1))[0], *samples(max(EVALUATED), seed=8)]
    return [one.evaluate(rows[: count + 1])["eval_loss"] for count in EVALUATED]


def copy_of_models(given):
    """The arguments with models of their own: sharding and training change a model."""
    copied = {
        name: given[name] for name in ("student", "teacher") if not isinstance(given.get(name), TargetStore | None)
    }
    return {**given, **deepcopy(copied)}


STUDENTS = {"llama": partial(llama, seed=1), "tied": still_gpt2, "mixture": mixture}
"""Models whose weights are saved as they are, once for two places, and under other names."""


def stopped(folder: Path, ranks: int, name: str):
    """The best weights of a sharded training of four steps; and again where it goes on after the first two."""
    folder = folder / f"{name} by {ranks}"
    given = {
        "teacher": llama(),
        "student": STUDENTS[name](),
        "eval_dataset": samples(6, seed=8),
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4 // ranks,
    }
    given |= {
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "lr_scheduler_type": "linear",
        "max_steps": 4,
        "train_dataset": samples(11, seed=7),
    }
    given |= {"save_strategy": "steps", "eval_strategy": "steps", "save_steps": 2, "eval_steps": 2}
    given |= {"load_best_model_at_end": True, "fsdp": ranks > 1}
    found = []
    for checkpoint in (None, str(folder / "checkpoint-2")):
        one = trainer(folder, **copy_of_models(given))
        one.train(resume_from_checkpoint=checkpoint)
        found.append(whole(weights(one.model)))
        one.save_model(str(folder / "saved"))
    return found


def run(folder: Path, ranks: int):
    """By name: the weights after training, and what was logged of it; and the losses of evaluations."""
    found = {}
    for name, given in cases(folder, ranks).items():
        backend = {"ddp_backend": "gloo", "ddp_find_unused_parameters": False} if ranks > 1 else {}
        one = trainer(folder / "trainer", per_device_eval_batch_size=2, **backend, **copy_of_models(given))
        one.train()
        assert all(isinstance(weight, DTensor) == given.get("fsdp", False) for weight in one.model.parameters()), name
        if name.startswith("teacher in bf16"):
            read_by = list(one.teachers[0].model.parameters())
            assert all(weight.dtype == torch.bfloat16 for weight in read_by), name
            assert all(isinstance(weight, DTensor) == given.get("fsdp", False) for weight in read_by), name
        if name == "online":
            found["evaluated"], found["refused"] = evaluations(one), refusal(one)
        logged = [
            {key: entry[key] for key in LOGGED if key in entry} for entry in one.state.log_history if "loss" in entry
        ]
        projectors = {} if one._matching is None else weights(one._matching)
        found[name] = {**whole(weights(one.model)), **projectors}, logged
    return {**found, "stopped": {name: stopped(folder, ranks, name) for name in STUDENTS}}


if __name__ == "__main__":
    # As in conftest.py: a training takes less time than to look for garbage among all that is imported.
    gc.freeze()
    result = run(Path(sys.argv[1]), ranks=2)
    if os.environ["RANK"] == "0":
        torch.save(result, Path(sys.argv[1]) / "two-ranks.pt")
