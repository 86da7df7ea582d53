"""Distil a language model into a copy with fewer layers, beside a control that learns from the text alone.

    python examples/distil.py TEACHER TEXT --layers 15 --steps 50

Prints the held-out loss of teacher, start (the student before training), student and control, in nats per token.
"""

import argparse
import copy
from pathlib import Path

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

from potstill import DistilTrainer, Loss
from potstill.students.prune_layers import chosen_layers, prune_layers

TOKENS = 128  # in a sample


def samples(lines, tokenizer):
    """The lines as rows of TOKENS token ids; an incomplete last row is dropped."""
    ids = tokenizer("".join(lines), verbose=False).input_ids
    return Dataset.from_dict({"input_ids": [ids[at : at + TOKENS] for at in range(0, len(ids) - TOKENS + 1, TOKENS)]})


def main():
    """Train student and control from one start, and print all four losses."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("teacher", help="a folder or a name on the hub")
    parser.add_argument("text", type=Path, help="a text file; its last tenth is held out")
    parser.add_argument("--layers", type=int, required=True, help="how many of the teacher's layers the student keeps")
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(options.teacher)
    lines = options.text.read_text(encoding="utf-8").splitlines(keepends=True)
    cut = len(lines) * 9 // 10
    train, held_out = samples(lines[:cut], tokenizer), samples(lines[cut:], tokenizer)
    held_out = held_out.select(range(min(64, len(held_out))))
    teacher = AutoModelForCausalLM.from_pretrained(options.teacher, dtype="float32")
    start = prune_layers(teacher, chosen_layers(teacher.config.num_hidden_layers, options.layers, rule="ends"))

    # The seed decides the order of the samples: student and control see the same tokens in the same order.
    schedule = {"max_steps": options.steps, "learning_rate": 1e-3, "lr_scheduler_type": "cosine", "warmup_steps": 5}
    quiet = {"save_strategy": "no", "logging_strategy": "no", "report_to": "none"}
    args = TrainingArguments("runs/example", seed=0, per_device_train_batch_size=8, **schedule, **quiet)
    text_only = {"losses": [Loss("cross_entropy")]}
    distilled = {"teacher": teacher, "losses": [Loss("forward_kl", weight=0.5), Loss("cross_entropy", weight=0.5)]}

    trainers = {"teacher": DistilTrainer(teacher, args, **text_only), "start": DistilTrainer(start, args, **text_only)}
    for name, losses in (("student", distilled), ("control", text_only)):
        trainers[name] = DistilTrainer(copy.deepcopy(start), args, train_dataset=train, **losses)
        trainers[name].train()
    for name, trainer in trainers.items():
        print(f"{name:<8} {trainer.evaluate(held_out)['eval_loss']:.4f} nats per token")


if __name__ == "__main__":
    main()
