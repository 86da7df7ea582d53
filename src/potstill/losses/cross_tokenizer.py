"""Losses between a student and a teacher of another tokenizer: values, and gradients in closed form.

All compute in the dtype of their arguments. None shifts, masks, weighs or averages.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from potstill.losses.divergences import FLOOR

LEAST_SURPRISE = 1e-5
"""Nats that are added to every surprise: below, a float32 knows a probability's distance from 1 no longer."""


class RowLoss(NamedTuple):
    """A loss of some rows of log-probabilities."""

    values: Float[Tensor, "n"]
    gradient: Float[Tensor, "n V"]
    """For the scores that the log-probabilities were normalised from."""


def likelihood_matching(
    log_p: Float[Tensor, "S"], log_q: Float[Tensor, "S"]
) -> tuple[Float[Tensor, "S"], Float[Tensor, "S"]]:
    """Approximate likelihood matching of the same spans of text: ``a - b + b log(b / a)``, with the surprises ``a`` of
    the student and ``b`` of the teacher (``-log p`` and ``-log q``, in nats).

    It is the binarised KL divergence, of "this text or any other", of both likelihoods to the power of 1/τ, times τ,
    for τ → ∞ (Minixhofer, Vulić & Ponti 2025, arXiv:2503.20083). At finite τ, all texts that both models find
    improbable would be alike.

    Returns:
        The value of each span, at least 0, and its derivative for ``log_p``.
    """
    # A likelihood is above 1 by rounding alone.
    ours, theirs = LEAST_SURPRISE - log_p.clamp_max(0), LEAST_SURPRISE - log_q.clamp_max(0)
    return ours - theirs + theirs * (theirs.log() - ours.log()), theirs / ours - 1


def sorted_distance(log_p: Float[Tensor, "n V"], log_q: Float[Tensor, "n W"]) -> RowLoss:
    """The L1 distance of the sorted probabilities (Universal Logit Distillation: Boizard, El Haddad, Hudelot & Colombo
    2024, arXiv:2402.12030). The smaller vocabulary is filled up with zeros. It knows no token, only the shapes."""
    p = log_p.exp()
    order = _descending_order(p)
    ours, theirs = p.gather(1, order), _descending(log_q.exp())
    both = min(ours.shape[1], theirs.shape[1])
    gap = ours.clone()
    gap[:, :both] -= theirs[:, :both]
    values = gap.abs().sum(-1) + theirs[:, both:].sum(-1)
    pd = p * torch.zeros_like(p).scatter_(1, order, gap.sign())
    return RowLoss(values, pd - p * pd.sum(-1, keepdim=True))


def _descending(rows: Float[Tensor, "n V"]) -> Float[Tensor, "n V"]:
    """The numbers of each row, the greatest first. On a CPU, NumPy sorts ten times faster than torch."""
    if rows.device.type != "cpu":
        return rows.sort(-1, descending=True).values
    return torch.from_numpy(np.sort(rows.detach().numpy(), -1)).flip(-1)


def _descending_order(rows: Float[Tensor, "n V"]) -> Int[Tensor, "n V"]:
    """The places of the numbers of each row, those of the greatest first; of equal numbers, in any order."""
    if rows.device.type != "cpu":
        return rows.argsort(-1, descending=True)
    return torch.from_numpy(np.argsort(rows.detach().numpy(), -1)).flip(-1)


def shared_divergence(
    log_p: Float[Tensor, "n V"], log_q: Float[Tensor, "n W"], ours: Int[Tensor, "K"], theirs: Int[Tensor, "K"]
) -> RowLoss:
    """KL(q ‖ p) over the tokens that are the same bytes in both vocabularies, and over all others as one category.

    Nothing is renormalised. It is the part of hybrid losses that compares tokens (GOLD, in TRL, 2025; X-Token,
    arXiv:2605.21699), with the tail that they leave out. Without a tail, the mass that the teacher gives to its other
    tokens would be taken from nothing.

    Args:
        log_p: the student's log-probabilities.
        log_q: the teacher's.
        ours: the student's ids of the shared tokens, each once.
        theirs: the teacher's ids of the same tokens, in the same order.
    """
    kept_p, kept_q = log_p[:, ours], log_q[:, theirs].clamp_min(FLOOR)
    other_p, other_q = log_p.index_fill(1, ours, -torch.inf), log_q.index_fill(1, theirs, -torch.inf)
    rest_p, rest_q = (each.logsumexp(-1, keepdim=True).clamp_min(FLOOR) for each in (other_p, other_q))
    q, tail = kept_q.exp(), rest_q.exp()
    values = (q * (kept_q - kept_p.clamp_min(FLOOR))).sum(-1) + (tail * (rest_q - rest_p))[:, 0]
    # The masses of all categories sum to 1, so the derivative for the scores is p - q, with the tail shared out as p.
    wanted = (other_p - rest_p).exp() * tail
    wanted[:, ours] = q
    return RowLoss(values, log_p.exp() * wanted.sum(-1, keepdim=True) - wanted)
