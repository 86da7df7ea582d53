"""Pre-flight measurement: a student writes some answers before it learns from any, and its teachers score them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from potstill.data.collators import Collate
from potstill.data.labels import IGNORE_INDEX, count_supervised_by_row
from potstill.data.prompts.collator import teacher_batch
from potstill.generation.decoding import Key
from potstill.losses.policy_gradient import label_log_probs
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, MixedTarget, TeacherTarget
from potstill.losses.token_scores import score_tokens
from potstill.losses.written_scores import score_written
from potstill.models.forward import forward
from potstill.models.head import Head
from potstill.models.head_extraction import read_head
from potstill.on_policy.preflight import Preflight, ReferenceSums, WrittenSums, verdict
from potstill.on_policy.prompts import SamplePrompt
from potstill.on_policy.rollouts import as_in_use
from potstill.teachers.beside import TeacherBeside
from potstill.training.mixed_batches import MixedBatches

PROMPTS = 64
"""The number of prompts. An interval over fewer is wide."""
AT_ONCE = 16
"""The number of prompts whose answers are written and scored together."""
SECONDS = 60.0
"""After this time, no more prompts are begun."""


@dataclass(frozen=True)
class Readers:
    """The models that read answers and references."""

    student: Any
    head_is_extracted: bool
    teachers: Sequence[TeacherBeside]
    weights: tuple[float, ...]
    mix: Any
    device: torch.device
    vocabulary: int | None

    def read(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Head | None, Tensor, TeacherTarget]:
        """The student's states at the supervised tokens of a batch, its head, the labels, and the teachers' target."""
        here = {name: value.to(self.device) for name, value in batch.items() if isinstance(value, Tensor)}
        head = read_head(self.student) if self.head_is_extracted else None
        states, labels = forward(self.student, head, here)
        targets = [one.target(teacher_batch(here)) for one in self.teachers]
        whole = targets[0] if len(targets) == 1 else MixedTarget(tuple(targets), self.weights, self.mix)
        return states, head, labels, whole


def measure(
    readers: Readers, batches: MixedBatches, collate: Collate, samples: Sequence[Any], step: int
) -> Preflight | None:
    """Let the student answer the prompts of samples, and judge what it writes.

    Args:
        readers: student and teachers.
        batches: knows the prompts of samples, and writes answers.
        collate: makes a batch of samples on the CPU.
        samples: at most so many are read as a minute allows.
        step: the number of steps that the student has taken.

    Returns:
        The judgement; None where fewer than two samples have a prompt with room for an answer.
    """
    written = _SumsByRow(("tokens", "reverse_kl", "overlap", "stopped"))
    references = _SumsByRow(("tokens", "teacher_nll", "student_nll"))
    begin, is_text, count = time.monotonic(), False, 0
    with as_in_use(readers.student):
        for block in _blocks(samples):
            batch = collate(block)
            prompts = batches.first_prompts(batch)
            if count and time.monotonic() - begin > SECONDS:
                break
            if not prompts:
                continue
            # The first token of a text is learned like all others.
            is_text |= bool((batch["labels"][:, 0] != IGNORE_INDEX).any())
            _score_written(readers, batches, prompts, count, step, written)
            _score_references(readers, batch, references)
            count += len(prompts)
    if count < 2:
        return None
    numbers = written.arrays()
    stopped = None if is_text else numbers["stopped"].astype(bool)
    sums = WrittenSums(
        np.arange(count), numbers["tokens"].astype(np.int64), numbers["reverse_kl"], numbers["overlap"], stopped
    )
    known = references.arrays()
    of_references = ReferenceSums(known["tokens"].astype(np.int64), known["teacher_nll"], known["student_nll"])
    return verdict(sums, of_references, step=step)


def _score_written(
    readers: Readers,
    batches: MixedBatches,
    prompts: Sequence[SamplePrompt],
    first: int,
    step: int,
    sums: "_SumsByRow",
) -> None:
    asked: dict[Key, SamplePrompt] = {(f"preflight/{first + at}", 0): prompt for at, prompt in enumerate(prompts)}
    rollouts = [*batches.write(asked, step).values()]
    states, head, labels, target = readers.read(batches.batch_of(rollouts))
    student = LogitsTarget(states) if head is None else HiddenTarget(states, head)
    scores = score_written(student, labels, target, vocabulary=readers.vocabulary)
    lengths = [len(one.ids) for one in rollouts]
    sums.add("tokens", lengths)
    sums.add("stopped", [one.finished for one in rollouts])
    for name in ("reverse_kl", "overlap"):
        sums.add(name, _by_row(scores[name], lengths))


def _score_references(readers: Readers, batch: Mapping[str, Tensor], sums: "_SumsByRow") -> None:
    states, head, labels, target = readers.read(batch)
    lengths = count_supervised_by_row(batch).tolist()
    nll = score_tokens(states, head, labels, vocabulary=readers.vocabulary)["nll"]
    sums.add("tokens", lengths)
    sums.add("student_nll", _by_row(nll, lengths))
    sums.add("teacher_nll", _by_row(-label_log_probs(target, labels, vocabulary=readers.vocabulary), lengths))


def _by_row(values: Tensor, lengths: Sequence[int]) -> list[float]:
    return [part.double().sum().item() for part in values.split(list(lengths))]


def _blocks(samples: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for first in range(0, len(samples), AT_ONCE):
        yield samples[first : first + AT_ONCE]


class _SumsByRow:
    """Numbers of rows, by name."""

    def __init__(self, names: Sequence[str]) -> None:
        self._found: dict[str, list[float]] = {name: [] for name in names}

    def add(self, name: str, values: Sequence[float]) -> None:
        self._found[name] += values

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(values, np.float64) for name, values in self._found.items()}
