"""The losses of logits that are in memory already: for a model whose head cannot be separated (head_extraction.py).

It costs one copy of the logits: their gradient.
"""

import torch

from potstill.losses.logit_chunks import GivenLogits
from potstill.losses.row_blocks import Job, replace_by_gradient
from potstill.models.head import statistics_dtype


class LossOfLogits(torch.autograd.Function):
    """From logits [N V] to the loss and each named number of the plan, differentiable in the logits."""

    @staticmethod
    def forward(ctx, logits, job: Job):  # type: ignore[no-untyped-def]
        """The loss, and the means of the plan's numbers."""
        plan, vocabulary = job.plan, job.vocabulary
        gradient = torch.zeros_like(logits)
        gradient[:, :vocabulary] = logits[:, :vocabulary]
        coefficients = [loss.weight / job.denominator for loss in plan.losses]
        total = torch.zeros(len(plan.names), dtype=statistics_dtype(logits.dtype), device=logits.device)
        chunks = job.chunks(GivenLogits(gradient, vocabulary))
        with torch.autocast(logits.device.type, enabled=False):
            for _, _, rows in chunks:
                total += replace_by_gradient(plan, rows, coefficients, ctx.needs_input_grad[0], job.compile)
        values = total / job.denominator
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(values)
        return values @ values.new_tensor(plan.weights), values

    @staticmethod
    def backward(ctx, of_loss, _):  # type: ignore[no-untyped-def]
        """The gradient for the logits."""
        (gradient,) = ctx.saved_tensors
        return gradient * of_loss, None
