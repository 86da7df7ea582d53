"""The losses of logits that are in memory already: for a model whose head cannot be extracted (head_extraction.py).

It costs one copy of the logits: their gradient.
"""

from collections.abc import Sequence

import torch

from potstill.losses.logit_chunks import GivenLogits
from potstill.losses.row_blocks import LossInputs, weights_beside
from potstill.losses.span_blocks import sums_of_target


class LossOfLogits(torch.autograd.Function):
    """From logits [N V] to the loss and each named number of the pairing, differentiable in the logits."""

    @staticmethod
    def forward(ctx, logits, groups: Sequence[LossInputs]):  # type: ignore[no-untyped-def]
        """The loss, and the means of the numbers of each group's pairing."""
        vocabulary, denominator = groups[0].vocabulary, groups[0].denominator
        gradient = torch.zeros_like(logits)
        gradient[:, :vocabulary] = logits[:, :vocabulary]
        student, wanted = GivenLogits(gradient, vocabulary), ctx.needs_input_grad[0]
        totals = []
        for inputs in groups:
            coefficients = [loss.weight / denominator for loss in inputs.pairing.losses]
            totals.append(sums_of_target(inputs, student, coefficients, wanted))
        values = torch.cat(totals) / denominator
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(values)
        return values @ weights_beside(groups, values), values

    @staticmethod
    def backward(ctx, of_loss, _):  # type: ignore[no-untyped-def]
        """The gradient for the logits."""
        (gradient,) = ctx.saved_tensors
        return gradient * of_loss, None
