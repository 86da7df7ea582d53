"""The gradient of every divergence in closed form, and the temperature's factor for value and gradient.

With p = softmax(s), a divergence D = Σ v and d = ∂D/∂p, the gradient for the logits s is

    ∂D/∂s = p ⊙ (d - Σ p d)        (the softmax's Jacobian is diag(p) - p pᵀ)

so v and p·d define a divergence. A constant in d drops out. With m the mixture and u = m / p:

    forward_kl        v = q log(q/p)                                p d = -q
    reverse_kl        v = p log(p/q)                                p d = v
    jsd               v = β q log(q/m) + (1-β) p log(p/m)           p d = (1-β) p log(p/m)
    skew_kl           v = q log(q/m)                                p d = -(1-α) q / u
    skew_reverse_kl   v = p log(p/m)                                p d = p (log(p/m) - α / u)
    total_variation   v = ½ |q - p|                                 p d = ½ p sign(p - q)
    adaptive_kl       the two KLs, mixed by a number per token that has no gradient

The same formulas serve a whole vocabulary and the K + 1 categories of a sparse target.

**Temperature.** The value is multiplied by T² (for ``total_variation`` by T): see ``divergences.py``. The gradient for
the logits has one more factor of 1/T, because p = softmax(s) with s = logits / T. ``scaled_value`` and
``scaled_gradient`` apply these factors, for dense, sparse and compiled paths alike.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from potstill.losses.divergences import head_share
from potstill.losses.loss import Loss

# A ratio of probabilities beyond e^±80 multiplies a probability below 1e-34. The clamp prevents an overflow and has no
# visible effect.
_WIDEST = 80.0

Coefficient = float | Tensor
"""The factor of a loss in the gradient: its weight, and usually 1 / the number of supervised tokens.

One number for all tokens; for cross-entropy also [N, 1], one for each.
"""


class Probabilities(NamedTuple):
    """The student's p and the teacher's q at one temperature, with their logarithms."""

    p: Float[Tensor, "N V"]
    q: Float[Tensor, "N V"]
    log_p: Float[Tensor, "N V"]
    log_q: Float[Tensor, "N V"]


def scaled_value(loss: Loss, v: Float[Tensor, "N V"]) -> Float[Tensor, "N"]:
    """The value per token, T² · Σ v, from the ``v`` of ``summands``."""
    return loss.scale * v.sum(-1)


def scaled_gradient(
    loss: Loss, pd: Float[Tensor, "N V"], coefficient: Coefficient, *, q_sums_to_one: bool
) -> tuple[Float[Tensor, "N V"], Float[Tensor, "N 1"] | Coefficient]:
    """c · p·d and c · Σ p·d with c = coefficient · T² / T: the gradient for the logits is the first - p · the second.

    Args:
        pd: ``p·d`` of ``summands``.
        q_sums_to_one: whether Σ q = 1 in every row. Then Σ p·d of ``forward_kl`` is -1, and nothing is summed.
    """
    coefficient = coefficient * (loss.scale / loss.temperature)
    mean = -1.0 if q_sums_to_one and loss.kind == "forward_kl" else pd.sum(-1, keepdim=True)
    return coefficient * pd, coefficient * mean


def summands(
    loss: Loss,
    at: Probabilities,
    threshold: Float[Tensor, "N 1"] | None = None,
    ratio: Float[Tensor, "N V"] | None = None,
) -> tuple[Float[Tensor, "N V"], Float[Tensor, "N V"]]:
    """v and p·d of the table above, without the temperature's factors.

    Args:
        threshold: ``divergences.head_threshold`` of the teacher, for ``adaptive_kl`` only.
        ratio: q / p, finite, where the caller has it without another exponential. Its logarithm is ``log_q - log_p``.
    """
    p, q, log_p, log_q = at
    gap = log_q - log_p
    match loss.kind:
        case "forward_kl":
            return q * gap, -q
        case "reverse_kl":
            v = -p * gap
            return v, v
        case "total_variation":
            difference = p - q
            return 0.5 * difference.abs(), 0.5 * p * difference.sign()
        case "adaptive_kl":
            assert threshold is not None
            head = head_share(p, q, log_q >= threshold)[:, None]
            forward, reverse = head * q, (1 - head) * p
            return (forward - reverse) * gap, -forward - reverse * gap
        case _:
            if ratio is None:
                gap = gap.clamp(-_WIDEST, _WIDEST)
                ratio = gap.exp()
            return _mixture_summands(loss, p, q, gap, ratio - 1)


def _mixture_summands(
    loss: Loss,
    p: Float[Tensor, "N V"],
    q: Float[Tensor, "N V"],
    gap: Float[Tensor, "N V"],
    excess: Float[Tensor, "N V"],
) -> tuple[Float[Tensor, "N V"], Float[Tensor, "N V"]]:
    if loss.kind == "jsd":
        assert loss.beta is not None
        log_u = torch.log(1 + loss.beta * excess)
        student = (loss.beta - 1) * p * log_u
        return loss.beta * q * (gap - log_u) + student, student
    assert loss.alpha is not None
    if loss.kind == "skew_kl":
        u = 1 + loss.alpha * excess
        return q * (gap - u.log()), (loss.alpha - 1) * q / u
    assert loss.kind == "skew_reverse_kl", loss.kind
    u = 1 + (1 - loss.alpha) * excess
    v = -p * u.log()
    return v, v - loss.alpha * p / u
