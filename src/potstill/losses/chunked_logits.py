"""The same losses from logits that are there already: for a model whose head cannot be taken apart (model_head.py)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from potstill.losses.chunked import MEMORY_BUDGET, check_labels
from potstill.losses.logit_chunks import GivenLogits
from potstill.losses.loss import Loss
from potstill.losses.pairing import Plan, check_shapes
from potstill.losses.row_blocks import replace_by_gradient, rows_in_chunks
from potstill.losses.teacher_target import TeacherTarget
from potstill.models.head import statistics_dtype


def distillation_loss_of_logits(
    logits: Float[Tensor, "N V"],
    labels: Int[Tensor, "N"],
    target: TeacherTarget | None,
    losses: Sequence[Loss],
    *,
    denominator: float | Tensor,
    vocabulary: int | None = None,
    memory_budget: int = MEMORY_BUDGET,
    compile: bool = False,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """``chunked.distillation_loss`` for logits at supervised tokens, with one more copy of them: their gradient.

    The arguments, what comes back and the errors are those of ``distillation_loss``.
    """
    plan = Plan.of(losses, target)
    if target is not None and plan.needs_teacher:
        check_shapes(target, len(logits), logits.shape[1], vocabulary)
    if not len(logits):
        return logits.float().sum() * 0, plan.named(torch.zeros(len(plan.names), device=logits.device))
    vocabulary = vocabulary or logits.shape[1]
    check_labels(labels, vocabulary)
    target = target if plan.needs_teacher else None
    loss, values = _LossOfLogits.apply(logits, labels, target, plan, denominator, vocabulary, memory_budget, compile)
    return loss, plan.named(values)


class _LossOfLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, labels, target, plan, denominator, vocabulary, memory_budget, compile):  # type: ignore[no-untyped-def]
        gradient = torch.zeros_like(logits)
        gradient[:, :vocabulary] = logits[:, :vocabulary]
        student = GivenLogits(gradient, vocabulary)
        coefficients = [loss.weight / denominator for loss in plan.losses]
        total = torch.zeros(len(plan.names), dtype=statistics_dtype(logits.dtype), device=logits.device)
        chunks = rows_in_chunks(student, target, labels, vocabulary, memory_budget)
        with torch.autocast(logits.device.type, enabled=False):
            for _, _, rows in chunks:
                total += replace_by_gradient(plan, rows, coefficients, ctx.needs_input_grad[0], compile)
        values = total / denominator
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(values)
        return values @ values.new_tensor(plan.weights), values

    @staticmethod
    def backward(ctx, of_loss, _):  # type: ignore[no-untyped-def]
        (gradient,) = ctx.saved_tensors
        return gradient * of_loss, *[None] * 7
