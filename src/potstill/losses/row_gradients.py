"""Value and gradient of the losses for a few rows of logits, against dense or sparse targets.

All functions are pure and compute in fp32, or in fp64 for fp64. They never write to their arguments.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import log_softmax

from potstill.losses.divergence_gradients import Coefficient, Probabilities, scaled_gradient, scaled_value, summands
from potstill.losses.divergences import FLOOR, head_threshold
from potstill.losses.loss import Loss
from potstill.losses.sparse_targets import NOTHING, KeptEntries, balance
from potstill.losses.teacher_target import SparseTarget


def by_temperature(losses: Sequence[Loss]) -> Iterator[tuple[float, list[int]]]:
    """The positions of the losses of each temperature. Losses of one temperature share their probabilities."""
    for temperature in dict.fromkeys(loss.temperature for loss in losses):
        yield temperature, [i for i, loss in enumerate(losses) if loss.temperature == temperature]


def dense(
    student: Float[Tensor, "N V"],
    teachers: dict[float, Float[Tensor, "N V"]],
    labels: Int[Tensor, "N"],
    losses: Sequence[Loss],
    coefficients: Sequence[Coefficient],
    with_gradient: bool = True,
) -> tuple[list[Float[Tensor, "N"]], Float[Tensor, "N V"] | None]:
    """Each loss's value per token, and the gradient of Σ coefficient · loss for the student's logits.

    ``teachers`` holds the teacher's logits for each temperature that a divergence in ``losses`` has.
    """
    values: list[Tensor] = [labels] * len(losses)
    gradient: Tensor | None = None
    for temperature, positions in by_temperature(losses):
        log_p = log_softmax(student / temperature if temperature != 1 else student, dim=-1)
        p = log_p.exp()
        # The gradient at one temperature is p · of_p + Σ others: see divergence_gradients.py.
        of_p: Tensor | float = 0.0
        others: list[Tensor] = []
        of_label: list[Coefficient] = []
        for i in positions:
            loss, coefficient = losses[i], coefficients[i]
            if not loss.needs_teacher:
                values[i] = -log_p.gather(1, labels[:, None])[:, 0]
                of_p = of_p + coefficient
                of_label.append(coefficient)
        divergences = [i for i in positions if losses[i].needs_teacher]
        if divergences:
            log_q = log_softmax(teachers[temperature] / temperature, dim=-1).clamp_min_(FLOOR)
            at = Probabilities(p, log_q.exp(), log_p.clamp_min_(FLOOR), log_q)
        for i in divergences:
            loss = losses[i]
            threshold = head_threshold(log_q) if loss.kind == "adaptive_kl" else None
            v, pd = summands(loss, at, threshold)
            values[i] = scaled_value(loss, v)
            if with_gradient:
                pd, mean = scaled_gradient(loss, pd, coefficients[i], q_sums_to_one=True)
                of_p = of_p - mean
                others.append(pd)
        if with_gradient:
            part = _minus_labels(sum(others, p * of_p), labels, of_label)
            gradient = part if gradient is None else gradient + part
    return values, gradient


def sparse(
    student: Float[Tensor, "N V"],
    target: SparseTarget | None,
    labels: Int[Tensor, "N"],
    losses: Sequence[Loss],
    coefficients: Sequence[Coefficient],
    with_gradient: bool = True,
) -> tuple[list[Float[Tensor, "N"]], Float[Tensor, "N V"] | None]:
    """As ``dense``, for a sparse target; ``target`` is None where all losses are cross-entropy.

    The student's tail is the sum over the vocabulary with -inf at the kept entries, not one minus their sum. So it is
    exact even where it is tiny, and needs no extra pass over the vocabulary.
    """
    values: list[Tensor] = [labels] * len(losses)
    gradient: Tensor | None = None
    for temperature, positions in by_temperature(losses):
        scores = student / temperature if temperature != 1 else student
        kept = None
        if target is not None and any(losses[i].needs_teacher for i in positions):
            kept = KeptEntries.of(target, scores.gather(1, target.ids.long()))
        at_label = scores.gather(1, labels[:, None])
        if kept is None or kept.sampled:
            top = scores.amax(-1, keepdim=True).clamp_min(NOTHING)
            exponentials = (scores - top).exp_()
        else:
            tail = scores.scatter_add(1, kept.ids, kept.holes())
            top = tail.amax(-1, keepdim=True).clamp_min(NOTHING)
            exponentials = tail.sub_(top).exp_()
        total = exponentials.sum(-1, keepdim=True)
        log_sum = top + total.log()
        it = balance(at_label, log_sum, kept, losses, coefficients, positions)
        for i, value in it.values.items():
            values[i] = value
        if with_gradient:
            # Without a tail the total is 0, and so is each exponential.
            part = exponentials.mul_(it.of_tail / torch.where(total > 0, total, 1.0))
            if kept is not None and it.of_kept is not None:
                part.scatter_add_(1, kept.ids, it.of_kept)
            part = _minus_labels(part, labels, [coefficients[i] for i in positions if not losses[i].needs_teacher])
            gradient = part if gradient is None else gradient + part
    return values, gradient


def _minus_labels(
    gradient: Float[Tensor, "N V"], labels: Int[Tensor, "N"], coefficients: Sequence[Coefficient]
) -> Float[Tensor, "N V"]:
    """Subtract the coefficients of cross-entropy at the label. May overwrite ``gradient``."""
    if not coefficients:
        return gradient
    total = sum(coefficients[1:], coefficients[0])
    if torch.compiler.is_compiling():
        # In one fused loop over the vocabulary a comparison is free, and a scatter is not.
        here = torch.arange(gradient.shape[1], device=gradient.device) == labels[:, None]
        return gradient - torch.where(here, total, 0.0)
    at_label = gradient.gather(1, labels[:, None])
    return gradient.scatter_(1, labels[:, None], at_label - total)
