"""The float64 reference. A variant is timed only if its value and gradients agree with it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.problem import Problem
from benchmarks.variants import Variant
from potstill.losses import divergences
from potstill.losses.loss import Loss
from potstill.losses.teacher_target import SparseTarget

BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
"""The greatest allowed relative error, by the number format of the matrix products: about ten times its rounding."""

ROWS = 64


@dataclass(frozen=True)
class Answer:
    """A loss's value, and its gradients for the hidden states and the head's weight."""

    value: Tensor
    of_hidden: Tensor
    of_weight: Tensor


@dataclass(frozen=True)
class Errors:
    """Relative errors: of the value, and of the gradients in the Frobenius norm."""

    value: float
    hidden: float
    weight: float
    bound: float

    @property
    def worst(self) -> float:
        """The greatest of the three."""
        return max(self.value, self.hidden, self.weight)

    @property
    def refusal(self) -> str | None:
        """The reason why the variant is not timed, or None."""
        parts = [("value", self.value), ("hidden gradient", self.hidden), ("weight gradient", self.weight)]
        # Not `error > bound`, which is false for NaN.
        missed = ", ".join(f"{error:.2g} in {name}" for name, error in parts if not error <= self.bound)
        if not missed:
            return None
        return f"refused: misses the reference by {missed} (bound {self.bound:g})"


def weighted_sum(losses: Sequence[Loss], student: Tensor, teacher: Tensor | None, labels: Tensor) -> Tensor:
    """The weighted sum of the losses over all tokens, by the definitions of ``potstill.losses.divergences``."""
    total = student.new_zeros(())
    for loss in losses:
        if loss.kind == "cross_entropy":
            each = torch.nn.functional.cross_entropy(student, labels, reduction="none")
        else:
            extra = {name: getattr(loss, name) for name in ("beta", "alpha") if getattr(loss, name) is not None}
            each = getattr(divergences, loss.kind)(student, teacher, loss.temperature, **extra)
        total = total + loss.weight * each.sum()
    return total


def _kept_and_tail(logits: Tensor, target: SparseTarget) -> tuple[Tensor, Tensor]:
    """Log-probabilities of student and teacher: of the kept tokens, and of all other tokens as one."""
    log_p = logits.log_softmax(-1)
    rest = log_p.scatter(1, target.ids, -torch.inf).logsumexp(-1, keepdim=True)
    student = torch.cat([log_p.gather(1, target.ids), rest], 1)
    return student, torch.cat([target.log_probs, target.log_tail[:, None]], 1).double()


def spread_evenly(target: SparseTarget, vocabulary: int) -> Tensor:
    """A captured distribution over the whole vocabulary; the tail's mass is spread evenly."""
    tail = target.log_tail[:, None] - math.log(vocabulary - target.ids.shape[1])
    return tail.repeat(1, vocabulary).scatter(1, target.ids, target.log_probs)


def _against_captured(losses: Sequence[Loss], logits: Tensor, target: SparseTarget, labels: Tensor) -> Tensor:
    student, teacher = _kept_and_tail(logits, target)
    alone = [loss for loss in losses if loss.needs_teacher]
    others = [loss for loss in losses if not loss.needs_teacher]
    return weighted_sum(alone, student, teacher, labels) + weighted_sum(others, logits, None, labels)


def reference(problem: Problem, losses: Sequence[Loss], spread: bool = False) -> Answer:
    """The mean over tokens and its gradients, in float64 by autograd, a few rows at a time so that any size fits."""
    hidden, weight, teacher_hidden, teacher_weight = (
        part.detach().double()
        for part in (problem.hidden, problem.weight, problem.teacher_hidden, problem.teacher_weight)
    )
    needs_teacher = any(loss.needs_teacher for loss in losses)
    of_weight, of_hidden, value = torch.zeros_like(weight), torch.zeros_like(hidden), hidden.new_zeros(())
    for first in range(0, len(hidden), ROWS):
        rows = slice(first, first + ROWS)
        student = (hidden[rows] @ weight.T).requires_grad_()
        labels = problem.labels[rows]
        if problem.captured is not None and needs_teacher and not spread:
            part = _against_captured(losses, student, problem.captured.rows(first, first + ROWS), labels)
        else:
            teacher = None
            if problem.captured is not None and needs_teacher:
                teacher = spread_evenly(problem.captured.rows(first, first + ROWS), len(weight)).double()
            elif needs_teacher:
                teacher = teacher_hidden[rows] @ teacher_weight.T
            part = weighted_sum(losses, student, teacher, labels)
        part = part / len(hidden)
        (of_logits,) = torch.autograd.grad(part, student)
        value += part.detach()
        of_hidden[rows] = of_logits @ weight
        of_weight.addmm_(of_logits.T, hidden[rows])
    return Answer(value, of_hidden, of_weight)


def answer(variant: Variant, problem: Problem) -> Answer:
    """A variant's value and gradients on a problem."""
    problem = problem.fresh()
    with problem.context():
        value = variant.loss(problem)
    value.backward()
    assert problem.hidden.grad is not None
    assert problem.weight.grad is not None
    return Answer(value.detach(), problem.hidden.grad, problem.weight.grad)


def compare(found: Answer, expected: Answer, precision: torch.dtype) -> Errors:
    """The relative errors of an answer."""

    def error(a: Tensor, b: Tensor) -> float:
        return float((a.double() - b).norm() / b.norm().clamp_min(1e-300))

    return Errors(
        error(found.value, expected.value),
        error(found.of_hidden, expected.of_hidden),
        error(found.of_weight, expected.of_weight),
        BOUNDS[precision],
    )


class Checker:
    """Compares variants with the reference. The reference of each set of losses is computed once."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._expected: dict[tuple[tuple[Loss, ...], bool], Answer] = {}

    def expected(self, variant: Variant) -> Answer:
        """What a variant must give on this problem."""
        key = variant.losses, variant.spread
        if key not in self._expected:
            self._expected[key] = reference(self.problem, *key)
        return self._expected[key]

    def errors(self, variant: Variant) -> Errors:
        """The errors of a variant on this problem."""
        expected = self.expected(variant)
        if self.problem.precision == torch.bfloat16:
            # The same numbers in fp32 first, so that bf16's rounding cannot hide a wrong formula.
            exact = compare(answer(variant, self.problem.in_fp32()), expected, torch.float32)
            if exact.refusal is not None:
                return exact
        return compare(answer(variant, self.problem), expected, self.problem.precision)
