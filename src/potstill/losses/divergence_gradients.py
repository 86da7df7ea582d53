"""The gradient of every divergence in closed form, from probabilities that are already there.

With p = softmax(s), a divergence D = Σ v and d = ∂D/∂p, the gradient for the logits s is

    ∂D/∂s = p ⊙ (d - Σ p d)        (the softmax's Jacobian is diag(p) - p pᵀ)

so all that a divergence has to say is v and p·d. A constant in d drops out. With m the mixture and u = m / p:

    forward_kl        v = q log(q/p)                                p d = -q
    reverse_kl        v = p log(p/q)                                p d = v
    jsd               v = β q log(q/m) + (1-β) p log(p/m)           p d = (1-β) p log(p/m)
    skew_kl           v = q log(q/m)                                p d = -(1-α) q / u
    skew_reverse_kl   v = p log(p/m)                                p d = p (log(p/m) - α / u)
    total_variation   v = ½ |q - p|                                 p d = ½ p sign(p - q)
    adaptive_kl       the two KLs, mixed by a number per token that has no gradient

The same lines serve a whole vocabulary and the K + 1 categories of a sparse target.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from potstill.losses.divergences import head_share
from potstill.losses.loss import Loss

# Beyond e^±80 a ratio of probabilities multiplies one below 1e-34: kept from overflowing, without a visible effect.
_WIDEST = 80.0


def summands(
    loss: Loss,
    p: Float[Tensor, "N V"],
    q: Float[Tensor, "N V"],
    log_p: Float[Tensor, "N V"],
    log_q: Float[Tensor, "N V"],
    threshold: Float[Tensor, "N 1"] | None = None,
    ratio: Float[Tensor, "N V"] | None = None,
) -> tuple[Float[Tensor, "N V"], Float[Tensor, "N V"]]:
    """v and p·d of the table above, before the temperature's factor.

    ``threshold`` is ``divergence.head_threshold`` of the teacher, for ``adaptive_kl`` only. ``ratio`` is q / p, from
    whoever has it without another exponential: finite, and ``log_q - log_p`` its logarithm.
    """
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
