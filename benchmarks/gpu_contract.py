"""The correctness contract on a device: chunked = naive, captured = live, compiled = eager, and one read a step."""

import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

from benchmarks.models import Pair, Shape
from benchmarks.problem import Problem, make_problem
from benchmarks.reference import Answer, Checker, answer, compare
from benchmarks.variants import ours
from potstill import DistilTrainer, Loss
from potstill.data.collators import Collator
from potstill.losses.loss import KINDS
from potstill.targets import TopKCodec

Checks = dict[str, dict[str, Any]]


def contract(device: torch.device, small: bool) -> Checks:
    """Each law that needs no compiling, by its name, with `holds` and its figures."""
    checks: Checks = {}
    for name, checker in _checkers(device, small):
        checks |= {f"chunked = naive, {kind}, {name}": _as_the_naive(checker, kind, compile=False) for kind in _kinds()}
    checks["captured = live"] = _captured(make_problem(32 if small else 1024, 300, 64, torch.float32, device))
    return checks | _trainings(device)


def compiled_contract(device: torch.device, small: bool) -> Checks:
    """The same for the compiled kernels, each of which takes seconds to compile; in small for one kind."""
    kinds = ["forward_kl"] if small else _kinds()
    return {
        f"compiled = naive, {kind}, {name}": _as_the_naive(checker, kind, compile=True)
        for name, checker in _checkers(device, small)
        for kind in kinds
    }


def _kinds() -> list[str]:
    return [kind for kind, it in KINDS.items() if not it.crosses_tokenizers]


def _checkers(device: torch.device, small: bool) -> Iterator[tuple[str, Checker]]:
    tokens, vocabulary = (32, 300) if small else (1024, 32000)
    for dtype, name in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        yield name, Checker(make_problem(tokens, vocabulary, 64, dtype, device))


def _as_the_naive(checker: Checker, kind: str, *, compile: bool) -> dict[str, Any]:
    """A loss gives the value and the gradients of its definition."""
    losses = (Loss(kind, 0.5), Loss("cross_entropy", 0.5)) if kind != "cross_entropy" else (Loss(kind),)
    errors = checker.errors(ours(losses, compile))
    return {"holds": errors.refusal is None, "error": errors.worst}


def _captured(problem: Problem) -> dict[str, Any]:
    """A store that keeps the whole vocabulary gives the loss and the gradients of the live teacher."""
    losses, vocabulary = (Loss("forward_kl", 0.5), Loss("cross_entropy", 0.5)), len(problem.weight)
    codec = TopKCodec(vocabulary, vocabulary, bits=32)
    records = codec.encode(problem.target, torch.rand(len(problem.labels), device=problem.labels.device))
    live = answer(ours(losses, False), problem)
    live = Answer(live.value.double(), live.of_hidden.double(), live.of_weight.double())
    errors = compare(answer(ours(losses, False), replace(problem, captured=codec.decode(records))), live, torch.float32)
    return {"holds": errors.refusal is None, "error": errors.worst}


def _trainings(device: torch.device) -> Checks:
    """One batch = accumulated micro-batches, in weights; and the waits for the device in a step."""
    pair = Pair(Shape(300, 64, 2, 2, rows=4, length=32), torch.float32, device)
    rows = [{"input_ids": torch.randint(0, 300, (8 + 3 * (at % 8),)).tolist()} for at in range(16)]
    fields = {"max_steps": 2, "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0, "bf16": False}
    start = {name: weight.clone() for name, weight in pair.student.state_dict().items()}

    def train(**batches: int) -> tuple[dict[str, Tensor], Counter[str]]:
        pair.student.load_state_dict(start)
        waits = _waits_of(
            lambda arguments: DistilTrainer(
                model=pair.student, teacher=pair.teacher, args=arguments, train_dataset=rows, compile=False
            ),
            fields | batches,
        )
        return {name: weight.clone() for name, weight in pair.student.state_dict().items()}, waits

    whole, _ = train(per_device_train_batch_size=8)
    parts, waits = train(per_device_train_batch_size=2, gradient_accumulation_steps=4)
    error = max(float((whole[name] - parts[name]).abs().max()) for name in whole)
    plain = _waits_of(
        lambda arguments: Trainer(pair.student, arguments, train_dataset=rows, data_collator=Collator(0)),
        fields | {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "logging_nan_inf_filter": False},
    )
    more = waits.total() - plain.total()
    return {
        "one batch = accumulated": {"holds": error < 1e-5, "error": error},
        "at most one wait a step more than Trainer": {
            # One more is the log at the end.
            "holds": more <= fields["max_steps"] + 1,
            "more": more,
            "lines": dict((waits - plain).most_common(20)),
        },
    }


def _waits_of(build: Any, fields: dict[str, Any]) -> Counter[str]:
    """The lines that wait for a GPU during a training, with their numbers; none on a CPU."""
    with tempfile.TemporaryDirectory() as folder:
        quiet = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_steps": fields["max_steps"]}
        arguments = TrainingArguments(str(Path(folder)), use_cpu=not torch.cuda.is_available(), **quiet, **fields)
        one = build(arguments)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            if torch.cuda.is_available():
                torch.cuda.set_sync_debug_mode("warn")
            try:
                one.train()
            finally:
                if torch.cuda.is_available():
                    torch.cuda.set_sync_debug_mode("default")
    return Counter(f"{one.filename}:{one.lineno}" for one in seen if "synchroniz" in str(one.message))
