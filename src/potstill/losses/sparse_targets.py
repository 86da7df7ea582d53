"""Losses against a sparse target, from the student's sums over the vocabulary. No tensor is wider than K + 1.

Each kept entry is a category. All other tokens together are one more category, the *tail* ("ghost"): the teacher's
exact tail mass against the student's tail mass. Nothing is renormalised, so kept entries gain no mass.
A sampled target has no tail: its entries stand for the whole distribution.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from potstill.losses.divergence_gradients import Coefficient, Probabilities, scaled_gradient, scaled_value, summands
from potstill.losses.divergences import FLOOR, head_threshold
from potstill.losses.loss import Loss
from potstill.losses.teacher_target import SparseTarget

NOTHING = -1e30
"""The log-sum-exp of no categories: -inf would make NaN of -inf - -inf."""


@dataclass(frozen=True)
class KeptEntries:
    """A sparse target's rows, and the student's scores (logits over temperature) at its entries."""

    ids: Int[Tensor, "N K"]
    used: Bool[Tensor, "N K"]
    log_q: Float[Tensor, "N K"]
    log_tail: Float[Tensor, "N 1"]
    scores: Float[Tensor, "N K"]
    sampled: bool

    @staticmethod
    def of(target: SparseTarget, scores: Float[Tensor, "N K"]) -> "KeptEntries":
        """``target`` with the student's ``scores`` at its ids."""
        log_q = target.log_probs.to(scores.dtype)
        log_tail = target.log_tail.to(scores.dtype)[:, None]
        return KeptEntries(target.ids.long(), log_q > -torch.inf, log_q, log_tail, scores, target.sampled)

    def holes(self) -> Float[Tensor, "N K"]:
        """-inf at the used entries and 0 at the others: added to the student's scores at ``ids``, it leaves the tail.

        It is added because an unused entry may have the id of a used one, and must not restore it.
        """
        return torch.zeros_like(self.scores).masked_fill(self.used, -torch.inf)


@dataclass(frozen=True)
class Balance:
    """The values per token, and the gradient for the scores in K + 1 numbers per token.

    ``gradient = of_tail * softmax(scores without the kept entries)``, plus ``of_kept`` at the kept entries' ids.
    """

    values: dict[int, Float[Tensor, "N"]]
    of_tail: Float[Tensor, "N 1"]
    of_kept: Float[Tensor, "N K"] | None


def balance(
    at_label: Float[Tensor, "N 1"],
    log_sum: Float[Tensor, "N 1"],
    kept: KeptEntries | None,
    losses: Sequence[Loss],
    coefficients: Sequence[Coefficient],
    positions: Sequence[int],
) -> Balance:
    """The losses at ``positions``, all of one temperature, from the student's sums over the vocabulary.

    Args:
        at_label: the student's score of the label.
        log_sum: log Σ exp of the student's scores; over its tail only, where ``kept`` has a tail.
        kept: the sparse target, or None where all losses are cross-entropy.
    """
    if kept is None:
        total = sum((coefficients[i] for i in positions), 0.0)
        return Balance(dict.fromkeys(positions, (log_sum - at_label)[:, 0]), total * torch.ones_like(log_sum), None)
    if kept.sampled:
        log_z, log_p, log_q = log_sum, kept.scores - log_sum, kept.log_q
    else:
        log_rest = log_sum.clamp_min(NOTHING)
        scores = kept.scores.masked_fill(~kept.used, NOTHING)
        log_z = torch.logaddexp(log_rest, scores.logsumexp(-1, keepdim=True))
        log_p = torch.cat([scores, log_rest], -1) - log_z
        # Where the entries are the whole vocabulary, the teacher's tail is only a rounding error.
        log_q = torch.cat([kept.log_q, kept.log_tail.masked_fill(log_sum == -torch.inf, -torch.inf)], -1)
    log_p, log_q = log_p.clamp_min(FLOOR), log_q.clamp_min(FLOOR)
    at = Probabilities(log_p.exp(), log_q.exp(), log_p, log_q)
    values: dict[int, Tensor] = {}
    gradient = torch.zeros_like(log_p)
    of_all: Tensor | float = 0.0
    for i in positions:
        loss, coefficient = losses[i], coefficients[i]
        if not loss.needs_teacher:
            values[i] = (log_z - at_label)[:, 0]
            of_all = of_all + coefficient
            continue
        v, pd = summands(loss, at, _threshold(loss, log_q))
        values[i] = scaled_value(loss, v)
        # The estimates of a sampled target sum to 1 on average only, so the sum is taken.
        pd, mean = scaled_gradient(loss, pd, coefficient, q_sums_to_one=False)
        gradient = gradient + pd
        of_all = of_all - mean
    if kept.sampled:
        return Balance(values, of_all * torch.ones_like(log_sum), gradient)
    gradient = gradient + of_all * at.p
    return Balance(values, gradient[:, -1:], gradient[:, :-1].masked_fill(~kept.used, 0.0))


def _threshold(loss: Loss, log_q: Float[Tensor, "N K"]) -> Float[Tensor, "N K"] | None:
    """The threshold of ``adaptive_kl``. The tail is never in its head: each of its tokens is improbable."""
    if loss.kind != "adaptive_kl":
        return None
    threshold = head_threshold(log_q[:, :-1]).expand_as(log_q).clone()
    threshold[:, -1] = torch.inf
    return threshold
