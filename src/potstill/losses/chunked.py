"""The one path that every loss takes: hidden states × head in chunks of tokens, gradient in the forward.

The logits of a batch are never there at once. A chunk's logits are computed, turned into the gradient for them in
place, multiplied into the gradients for the hidden states and the head, and overwritten by the next chunk: memory is
flat in the number of tokens, and the backward has only to scale. The head's gradient is summed in fp32 whatever the
matrix products are in (fp64 for fp64), and is not there at all when the head is frozen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from potstill.errors import UserError
from potstill.losses.divergence_gradients import Coefficient
from potstill.losses.logit_chunks import LogitsSource, ProductInChunks, product_dtype
from potstill.losses.loss import Loss
from potstill.losses.pairing import Plan, check_shapes
from potstill.losses.row_blocks import Rows, replace_by_gradient, rows_in_chunks
from potstill.losses.teacher_target import TeacherTarget
from potstill.losses.weight_gradients import HeadGradients
from potstill.models.head import Head, statistics_dtype

MEMORY_BUDGET = 256 * 2**20
"""Bytes for the logits of one chunk, the student's and its teachers', and for what becomes of them."""


def distillation_loss(
    hidden: Float[Tensor, "N H"],
    head: Head,
    labels: Int[Tensor, "N"],
    target: TeacherTarget | None,
    losses: Sequence[Loss],
    *,
    denominator: float | Tensor,
    vocabulary: int | None = None,
    memory_budget: int = MEMORY_BUDGET,
    compile: bool = False,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Σ over losses of weight · Σ over tokens of the divergence / denominator.

    Differentiable, once, for ``hidden``, ``head.weight`` and ``head.bias``; those that need no gradient cost none.

    Args:
        hidden: the student's last hidden states at supervised tokens only.
        labels: the id that follows each of them; none is ignored.
        target: the teacher's rows for the same tokens, or None where all losses are cross-entropy.
        denominator: the number of supervised tokens of the whole optimizer step, all ranks and micro-batches.
        vocabulary: compare the first so many ids only; rows of a head beyond it are padding. See ``vocabulary.py``.
        memory_budget: bytes for a chunk's logits, the student's and its teachers', and for what becomes of them.
        compile: fuse the passes over the vocabulary with ``torch.compile``; see ``fused.worth_compiling``.

    Returns:
        The loss, and each loss's own mean without its weight, detached, by kind (``forward_kl``); for an ensemble also
        each teacher's (``forward_kl/teacher0``).

    Raises:
        UserError: losses and target do not fit: no target for a divergence, other rows or another vocabulary than the
            student's, a sparse target of another temperature, a sampled one for a divergence that needs an exact one.
    """
    plan = Plan.of(losses, target)
    if target is not None and plan.needs_teacher:
        check_shapes(target, len(hidden), len(head.weight), vocabulary)
    vocabulary = vocabulary or len(head.weight)
    if not len(hidden):
        return _nothing(hidden, head), plan.named(torch.zeros(len(plan.names), device=hidden.device))
    check_labels(labels, vocabulary)
    job = _Job(head, labels, target, plan, denominator, vocabulary, memory_budget, compile, torch.is_grad_enabled())
    loss, values = _ChunkedLoss.apply(hidden, head.weight, head.bias, job)
    return loss, plan.named(values)


def check_labels(labels: Int[Tensor, "N"], vocabulary: int) -> None:
    """Looked at on a CPU only: reading a number on a GPU would wait for all that is queued there.

    Raises:
        UserError: a label that is no id of the vocabulary.
    """
    if labels.device.type == "cpu" and not 0 <= int(labels.min()) <= int(labels.max()) < vocabulary:
        raise UserError(
            f"labels go from {int(labels.min())} to {int(labels.max())}, but there are {vocabulary} ids to compare"
        )


def _nothing(hidden: Float[Tensor, "N H"], head: Head) -> Float[Tensor, ""]:
    """Zero, with a graph that reaches every parameter: other ranks wait for this rank's gradients."""
    touched = [tensor.reshape(-1)[:1].sum() for tensor in (head.weight, head.bias) if tensor is not None]
    return (hidden.sum() + sum(touched)).float() * 0


@dataclass(frozen=True)
class _Job:
    """What the autograd function is told beside its differentiable inputs."""

    head: Head
    labels: Tensor
    target: TeacherTarget | None
    plan: Plan
    denominator: float | Tensor
    vocabulary: int
    memory_budget: int
    compile: bool
    needs_gradient: bool

    def coefficients(self, factor: float | Tensor) -> list[Coefficient]:
        return [loss.weight * factor for loss in self.plan.losses]

    def rows(self, student: LogitsSource) -> Iterator[tuple[int, int, Rows]]:
        """Chunk by chunk: its first and last token, and its rows of everything."""
        target = self.target if self.plan.needs_teacher else None
        return rows_in_chunks(student, target, self.labels, self.vocabulary, self.memory_budget)


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, job: _Job):  # type: ignore[no-untyped-def]
        wanted = [job.needs_gradient and needed for needed in ctx.needs_input_grad[:3]]
        with torch.no_grad():
            values, gradients = _run(hidden, weight, bias, job, wanted)
        # No matrix product: autocast would round it to bf16.
        loss = (values * values.new_tensor(job.plan.weights)).sum()
        ctx.gradients = gradients
        ctx.mark_non_differentiable(values)
        return loss, values

    @staticmethod
    def backward(ctx, of_loss, _):  # type: ignore[no-untyped-def]
        if ctx.gradients is None:
            raise RuntimeError("the loss's gradient was made once, in the forward, and has been handed out already")
        # Not kept in ctx: whoever receives the last reference to a gradient may take it as it is, without a copy.
        gradients, ctx.gradients = ctx.gradients, None
        # Reading a number on a GPU would wait for all that is queued there; multiplying is cheaper.
        if of_loss.device.type != "cpu" or of_loss.item() != 1:
            for gradient in gradients:
                if gradient is not None:
                    gradient.mul_(of_loss)
        return *gradients, None


def _run(
    hidden: Float[Tensor, "N H"], weight: Tensor, bias: Tensor | None, job: _Job, wanted: Sequence[bool]
) -> tuple[Float[Tensor, "names"], list[Tensor | None]]:
    """The means of all of the plan's numbers, and the gradients that are wanted for hidden, weight and bias."""
    dtype = product_dtype(hidden, weight)
    student = ProductInChunks(hidden, replace(job.head, weight=weight, bias=bias), job.vocabulary, dtype)
    gradients: HeadGradients | None = None
    # fp16 would lose small gradients to underflow if they were divided by the denominator before the products.
    early, late = (1.0, 1 / job.denominator) if dtype == torch.float16 else (1 / job.denominator, 1.0)
    total = torch.zeros(len(job.plan.names), dtype=statistics_dtype(dtype), device=hidden.device)
    chunks = job.rows(student)
    with torch.autocast(hidden.device.type, enabled=False):
        for first, last, rows in chunks:
            if gradients is None:
                gradients = HeadGradients(hidden, weight, bias, student, wanted, in_one_chunk=last == len(hidden))
            total += replace_by_gradient(job.plan, rows, job.coefficients(early), any(wanted), job.compile)
            gradients.add(first, last, rows.student.product)
    assert gradients is not None
    return total / job.denominator, gradients.finished(late)
