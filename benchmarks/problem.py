"""A problem: the inputs that every loss gets.

Shapes: N supervised tokens, H hidden, V vocabulary.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from potstill.losses.teacher_target import HiddenTarget, SparseTarget, TeacherTarget
from potstill.models.head import Head

SPREAD = 3.0
"""Standard deviation of the logits, about that of a small language model."""


@dataclass(frozen=True)
class Problem:
    """Hidden states and heads of a student and a teacher at N supervised tokens, and the labels."""

    hidden: Float[Tensor, "N H"]
    weight: Float[Tensor, "V H"]
    teacher_hidden: Float[Tensor, "N H"]
    teacher_weight: Float[Tensor, "V H"]
    labels: Int[Tensor, "N"]
    autocast: bool = False
    """Whether matrix products are in bf16 while the weights are not: mixed precision, as Trainer's ``bf16=True``."""
    captured: SparseTarget | None = None
    """Targets of a store, in place of the teacher."""

    @property
    def precision(self) -> torch.dtype:
        """The number format of the matrix products. It limits how exact an answer can be."""
        return torch.bfloat16 if self.autocast else self.hidden.dtype

    @property
    def target(self) -> TeacherTarget:
        """The teacher's target for potstill's losses."""
        return self.captured or HiddenTarget(self.teacher_hidden, Head(self.teacher_weight))

    def context(self) -> AbstractContextManager[object]:
        """Autocast if the problem has mixed precision."""
        return torch.autocast(self.hidden.device.type, torch.bfloat16) if self.autocast else nullcontext()

    def in_fp32(self) -> "Problem":
        """The problem with the same numbers in fp32, without autocast."""
        return replace(
            self,
            hidden=self.hidden.float(),
            weight=self.weight.float(),
            teacher_hidden=self.teacher_hidden.float(),
            teacher_weight=self.teacher_weight.float(),
            autocast=False,
        )

    def fresh(self) -> "Problem":
        """The problem with new leaf tensors, which have no gradient yet."""
        hidden, weight = (tensor.detach().requires_grad_() for tensor in (self.hidden, self.weight))
        return replace(self, hidden=hidden, weight=weight)


def make_problem(
    tokens: int, vocabulary: int, width: int, dtype: torch.dtype, device: torch.device, seed: int = 0
) -> Problem:
    """A random problem. The teacher is the student plus noise of half its size."""
    random = torch.Generator().manual_seed(seed)

    def draw(rows: int, scale: float) -> Tensor:
        return scale * torch.randn(rows, width, generator=random)

    hidden, weight = draw(tokens, 1.0), draw(vocabulary, SPREAD / width**0.5)
    teacher_hidden, teacher_weight = hidden + draw(tokens, 0.5), weight + draw(vocabulary, 0.5 * SPREAD / width**0.5)
    labels = torch.randint(0, vocabulary, (tokens,), generator=random)
    return Problem(
        hidden.to(device, dtype),
        weight.to(device, dtype),
        teacher_hidden.to(device, dtype),
        teacher_weight.to(device, dtype),
        labels.to(device),
    ).fresh()
