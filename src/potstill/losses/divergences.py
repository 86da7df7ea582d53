"""The divergences between a teacher q and a student p, written directly: the reference of this project.

Each takes student and teacher logits (log-probabilities are logits too) and returns one number per token, unreduced and
differentiable in any dtype. ``p = softmax(student / T)`` and ``q = softmax(teacher / T)``.

**Temperature.** The gradient of a divergence that is smooth at p = q shrinks as 1/T² with the temperature. So the
value, and with it the gradient, is multiplied by T² (Hinton et al. 2015, arXiv:1503.02531, section 2). Total variation
is not smooth there: its gradient shrinks as 1/T, so it is multiplied by T.

Training takes ``chunked.py``. Tests compare it with these functions in float64.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import log_softmax

FLOOR = -1e4
"""Replaces the logarithm of a probability of exactly zero, so that ``0 * log 0`` is zero and not NaN."""

HEAD_MASS = 0.5
"""The share of the teacher's probability that is the head of ``adaptive_kl``: μ in the paper."""


def _log_probs(
    student: Float[Tensor, "N V"], teacher: Float[Tensor, "N V"], temperature: float
) -> tuple[Float[Tensor, "N V"], Float[Tensor, "N V"]]:
    log_p, log_q = (log_softmax(logits / temperature, dim=-1).clamp_min(FLOOR) for logits in (student, teacher))
    return log_p, log_q


def _kl(log_a: Float[Tensor, "N V"], log_b: Float[Tensor, "N V"]) -> Float[Tensor, "N"]:
    return (log_a.exp() * (log_a - log_b)).sum(-1)


def _log_mixture(log_a: Float[Tensor, "N V"], log_b: Float[Tensor, "N V"], share: float) -> Float[Tensor, "N V"]:
    """log(share · a + (1 - share) · b), without leaving the logarithms."""
    shares = torch.tensor([share, 1 - share], dtype=log_a.dtype, device=log_a.device).log()
    return torch.logaddexp(log_a + shares[0], log_b + shares[1])


def forward_kl(
    student: Float[Tensor, "N V"], teacher: Float[Tensor, "N V"], temperature: float = 1.0
) -> Float[Tensor, "N"]:
    """T² · Σ q (log q - log p). Hinton et al. 2015, arXiv:1503.02531, minus the teacher's entropy."""
    log_p, log_q = _log_probs(student, teacher, temperature)
    return temperature**2 * _kl(log_q, log_p)


def reverse_kl(
    student: Float[Tensor, "N V"], teacher: Float[Tensor, "N V"], temperature: float = 1.0
) -> Float[Tensor, "N"]:
    """T² · Σ p (log p - log q). Gu et al. 2023 (MiniLLM), arXiv:2306.08543, equation 1, per token."""
    log_p, log_q = _log_probs(student, teacher, temperature)
    return temperature**2 * _kl(log_p, log_q)


def jsd(
    student: Float[Tensor, "N V"], teacher: Float[Tensor, "N V"], temperature: float = 1.0, beta: float = 0.5
) -> Float[Tensor, "N"]:
    """T² · (β KL(q‖m) + (1-β) KL(p‖m)), m = β q + (1-β) p. Agarwal et al. 2023 (GKD), arXiv:2306.13649, equation 1."""
    log_p, log_q = _log_probs(student, teacher, temperature)
    log_m = _log_mixture(log_q, log_p, beta)
    return temperature**2 * (beta * _kl(log_q, log_m) + (1 - beta) * _kl(log_p, log_m))


def skew_kl(
    student: Float[Tensor, "N V"], teacher: Float[Tensor, "N V"], temperature: float = 1.0, alpha: float = 0.1
) -> Float[Tensor, "N"]:
    """T² · KL(q ‖ α q + (1-α) p). Ko et al. 2024 (DistiLLM), arXiv:2402.03898, equation 3."""
    log_p, log_q = _log_probs(student, teacher, temperature)
    return temperature**2 * _kl(log_q, _log_mixture(log_q, log_p, alpha))


def skew_reverse_kl(
    student: Float[Tensor, "N V"], teacher: Float[Tensor, "N V"], temperature: float = 1.0, alpha: float = 0.1
) -> Float[Tensor, "N"]:
    """T² · KL(p ‖ α p + (1-α) q). Ko et al. 2024 (DistiLLM), arXiv:2402.03898, section 3.1."""
    log_p, log_q = _log_probs(student, teacher, temperature)
    return temperature**2 * _kl(log_p, _log_mixture(log_p, log_q, alpha))


def total_variation(
    student: Float[Tensor, "N V"], teacher: Float[Tensor, "N V"], temperature: float = 1.0
) -> Float[Tensor, "N"]:
    """T · ½ Σ |q - p|. Wen et al. 2023 (f-distill), arXiv:2307.15190, section 3.2. T, not T²: see above."""
    log_p, log_q = _log_probs(student, teacher, temperature)
    return temperature * 0.5 * (log_q.exp() - log_p.exp()).abs().sum(-1)


def adaptive_kl(
    student: Float[Tensor, "N V"], teacher: Float[Tensor, "N V"], temperature: float = 1.0
) -> Float[Tensor, "N"]:
    """T² · (h KL(q‖p) + (1-h) KL(p‖q)). Wu et al. 2024 (AKL), arXiv:2404.02657, equations 13 to 15.

    h = Σ_head |q - p| / Σ |q - p| is a number per token without a gradient. The head is the teacher's most probable
    tokens that hold at most ``HEAD_MASS`` together, and always the first. Equally probable tokens stay together.
    """
    log_p, log_q = _log_probs(student, teacher, temperature)
    share = head_share(log_p.exp().detach(), log_q.exp(), log_q >= head_threshold(log_q))
    return temperature**2 * (share * _kl(log_q, log_p) + (1 - share) * _kl(log_p, log_q))


def head_share(p: Float[Tensor, "N V"], q: Float[Tensor, "N V"], head: Tensor) -> Float[Tensor, "N"]:
    """Σ_head |q - p| / Σ |q - p|; a half where p = q, where it does not matter."""
    gap = (q - p).abs()
    total = gap.sum(-1)
    return torch.where(total > 0, (gap * head).sum(-1) / total.clamp_min(torch.finfo(total.dtype).tiny), 0.5)


def head_threshold(log_q: Float[Tensor, "N V"]) -> Float[Tensor, "N 1"]:
    """The smallest log-probability of a token in the head of ``adaptive_kl``."""
    ordered = log_q.sort(dim=-1, descending=True).values
    held = ordered.exp().cumsum(-1)
    # The last of equally probable tokens decides for all of them; otherwise the order of the sort would decide.
    last_of_equals = torch.ones_like(held, dtype=torch.bool)
    last_of_equals[:, :-1] = ordered[:, :-1] > ordered[:, 1:]
    inside = torch.where((held <= HEAD_MASS) & last_of_equals, ordered, ordered[:, :1])
    return inside.amin(-1, keepdim=True)
