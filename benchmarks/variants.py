"""Variants: ways to compute a loss and its gradient, including potstill's own."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from benchmarks.problem import Problem
from potstill.losses.chunked import distillation_loss
from potstill.losses.loss import Loss
from potstill.models.head import Head
from potstill.training.memory import loss_budget

OURS, COMPILED = "potstill", "potstill, compiled"


@dataclass(frozen=True)
class Variant:
    """One way to compute ``losses``."""

    name: str
    losses: tuple[Loss, ...]
    loss: Callable[[Problem], Tensor]
    spread: bool = False
    """Whether a captured tail is spread evenly over the tokens that were not kept, and not compared as one token."""

    def step(self, problem: Problem) -> None:
        """Compute value and gradients once; drops the gradients of the step before."""
        problem.hidden.grad = problem.weight.grad = None
        with problem.context():
            loss = self.loss(problem)
        loss.backward()


def ours(losses: tuple[Loss, ...], compile: bool, memory_budget: int | None = None) -> Variant:
    """potstill's own loss, called as DistilTrainer calls it."""

    def loss(problem: Problem) -> Tensor:
        target = problem.target if any(loss.needs_teacher for loss in losses) else None
        tokens = float(len(problem.labels))
        value, _ = distillation_loss(
            problem.hidden,
            Head(problem.weight),
            problem.labels,
            target,
            losses,
            denominator=tokens,
            memory_budget=memory_budget or loss_budget(problem.hidden.device, coming=0),
            compile=compile,
        )
        return value

    return Variant(COMPILED if compile else OURS, losses, loss)
