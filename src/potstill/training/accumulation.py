"""Accumulation: one optimizer step over any number of micro-batches, with one of them in memory at a time.

The loss of a step is the sum over its supervised tokens divided by their number. Of several micro-batches, this number
is known only after the last one. So each is divided by a power of two, which rounds nothing. At the end of the step,
before gradient clipping, the gradient and the figures are scaled once to the true number. A step of one micro-batch
divides by the true number at once, which saves that pass over all gradients.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import log2

import torch
from torch import Tensor, nn

from potstill.data.labels import count_supervised
from potstill.data.positions import supervised_positions
from potstill.training.mixed_batches import ROLLOUTS, Batch, parts_of
from potstill.training.taught_rows import GROUPS, TaughtGroups

WRITTEN = "on_policy/"
"""How the names of terms begin that are learned from samples which the student wrote."""

UNTAUGHT = "tokens_without_teacher"
"""The name of the number of supervised tokens from which cross-entropy alone is learned, where teachers have names."""


class MicroBatches:
    """The micro-batches of one optimizer step, read one by one.

    The first is read at once. A loader draws the order of its samples at the first read, and a resumed training
    restores its random state only after that.
    """

    def __init__(self, loader: Iterator[Batch], count: int) -> None:
        self._loader = loader
        self._first = next(loader, None)
        self._count = 0 if self._first is None else count

    @property
    def first(self) -> Batch | None:
        """The first micro-batch, until it is read; None where the loader has ended."""
        return self._first

    def __len__(self) -> int:
        # The number stays the same during reading: Trainer compares it, and synchronises gradients at the last batch.
        return self._count

    def __iter__(self) -> Iterator[Batch]:
        batch, self._first = self._first, None
        for left in reversed(range(self._count)):
            if batch is None:
                return
            yield batch
            batch = next(self._loader, None) if left else None


def only_one(batches: MicroBatches | Sequence[Batch]) -> list[Batch]:
    """The micro-batch of a step that has no other, without reading it; else nothing."""
    first = batches.first if isinstance(batches, MicroBatches) else next(iter(batches), None)
    return [first] if len(batches) == 1 and first is not None else []


class OptimizerStep:
    """The sums of one optimizer step.

    Args:
        expected: the approximate number of supervised tokens of a step, over all ranks and micro-batches.
        device: the device of the batches.
        teachers: the teachers' names, if each teaches some of the samples only.
    """

    def __init__(self, expected: int, device: torch.device, teachers: Sequence[str] = ()) -> None:
        self.divisor = torch.full((), 2.0 ** round(log2(max(expected, 1))), device=device)
        """The divisor of each micro-batch; the same on all ranks."""
        self._divisor_is_exact = False
        self._teachers = teachers
        self.tokens = torch.zeros(3 + 2 * len(teachers), dtype=torch.int64, device=device)
        """Supervised tokens of this rank so far: all of them, those that the student wrote, those without a teacher,
        and then those of each teacher: first the samples' own, then the written ones."""
        self.loss = torch.zeros((), device=device)
        self.terms: dict[str, Tensor] = {}

    def tokens_of(self, batches: Sequence[Batch]) -> Tensor:
        """The number of supervised tokens of these micro-batches of this rank."""
        parts = [part for batch in batches for part in parts_of(batch)]
        return sum((count_supervised(part) for part in parts), torch.zeros_like(self.tokens[0]))

    def divide_by(self, tokens: Tensor) -> None:
        """Divide by the number of tokens of the step, on all ranks, where it is known before the first micro-batch."""
        self.divisor = tokens.clamp(min=1).float()
        self._divisor_is_exact = True

    def add_terms(self, terms: Mapping[str, Tensor], ranks: int) -> None:
        """Add the logged numbers of a micro-batch, which are divided by ``divisor``."""
        for name, value in terms.items():
            self.terms[name] = self.terms.get(name, torch.zeros_like(value)) + value * ranks

    def add(self, parts: Sequence[Batch], loss: Tensor) -> None:
        """Add a micro-batch: the tokens of its parts, and its loss, which is divided by ``divisor``."""
        for part in parts:
            count = len(supervised_positions(part))
            self.tokens[0] += count
            if ROLLOUTS in part:
                self.tokens[1] += count
            if GROUPS in part:
                self._count_taught(part[GROUPS], 3 + (len(self._teachers) if ROLLOUTS in part else 0))
        self.loss = self.loss + loss

    def _count_taught(self, groups: TaughtGroups, first: int) -> None:
        self.tokens[2] += groups.untaught
        for number in range(len(self._teachers)):
            self.tokens[first + number] += groups.tokens_of(number)

    def finish(self, tokens: Tensor, modules: Iterable[nn.Module]) -> Tensor:
        """Scale gradients and logged numbers to ``tokens``, those of all ranks. Returns the loss of the step.

        A term that is learned from some of the tokens only becomes a mean over these.
        """
        factor = self.divisor / tokens[0].clamp(min=1)
        if not self._divisor_is_exact:
            weights = (weight for module in modules for weight in module.parameters())
            with torch.no_grad():
                _multiply([weight.grad for weight in weights if weight.grad is not None], factor)
        counts = torch.cat([(tokens[0] - tokens[1])[None], tokens[1:]])
        self.terms = {
            name: value * (self.divisor / counts[self._learned_by(name)].clamp(min=1))
            for name, value in self.terms.items()
        }
        if self._teachers:
            taught = {f"tokens/{name}": counts[self._learned_by(f"/{name}")] for name in self._teachers}
            self.terms |= {name: count.float() for name, count in {**taught, UNTAUGHT: counts[2]}.items()}
        return self.loss * factor

    def _learned_by(self, term: str) -> int:
        """The place in ``tokens`` of the number of tokens over which a term is a mean."""
        is_written, teacher = term.startswith(WRITTEN), term.rpartition("/")[2]
        if "/" in term.removeprefix(WRITTEN) and teacher in self._teachers:
            return 3 + (len(self._teachers) if is_written else 0) + self._teachers.index(teacher)
        return int(is_written)


def _multiply(tensors: Sequence[Tensor], factor: Tensor) -> None:
    """Multiply tensors in place; those of one device, dtype and class at once: on a GPU each call takes its time."""
    alike: dict[tuple[torch.device, torch.dtype, type], list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        alike[tensor.device, tensor.dtype, type(tensor)].append(tensor)
    for (device, _, kind), group in alike.items():
        if kind is Tensor:
            torch._foreach_mul_(group, factor.to(device))
        else:  # a shard of FSDP's takes no plain tensor in a list of tensors
            for tensor in group:
                tensor.mul_(factor.to(device))
