"""Variants: ways to compute a loss and its gradient, potstill's own among them."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from benchmarks.problem import Problem
from potstill.losses.chunked import distillation_loss
from potstill.losses.loss import Loss
from potstill.models.head import Head

OURS, COMPILED = "potstill", "potstill, compiled"


@dataclass(frozen=True)
class Variant:
    """One way to compute ``losses``."""

    name: str
    losses: tuple[Loss, ...]
    loss: Callable[[Problem], Tensor]
    spread: bool = False
    """Whether a captured tail is spread evenly over the tokens that were not kept, and not compared as one."""

    def step(self, problem: Problem) -> None:
        """Value and gradient once, into gradients that are not there yet."""
        problem.hidden.grad = problem.weight.grad = None
        with problem.context():
            loss = self.loss(problem)
        loss.backward()


def ours(losses: tuple[Loss, ...], compile: bool) -> Variant:
    """The path that DistilTrainer takes."""

    def loss(problem: Problem) -> Tensor:
        target = problem.target if any(loss.needs_teacher for loss in losses) else None
        tokens = float(len(problem.labels))
        value, _ = distillation_loss(
            problem.hidden, Head(problem.weight), problem.labels, target, losses, denominator=tokens, compile=compile
        )
        return value

    return Variant(COMPILED if compile else OURS, losses, loss)
