"""Fidelity: how close stored targets are to the live teacher."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from potstill.losses.span_likelihood import TokenNumbers
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, SparseTarget
from potstill.targets.codecs.logit_rows import logit_rows

STAND_IN_TEMPERATURE = 2.0
"""The stand-in for a student is the teacher itself, at a temperature that is higher by this factor."""


@dataclass(frozen=True)
class Fidelity:
    """Distances of stored targets from the live teacher: means over tokens, divergences in nats."""

    tokens: int
    kl: float
    """KL(teacher ‖ stored) over the whole vocabulary, with the tail spread evenly over the tokens that are not kept. It
    counts missing as well as wrong probabilities. Infinite for sampled targets, which give most tokens no mass."""
    kl_kept: float
    """KL(teacher ‖ stored) over the kept tokens and one entry for the tail. It counts only wrong probabilities.
    Infinite for sampled targets."""
    total_variation: float
    """Half the sum of absolute differences of probabilities, with the tail spread evenly."""
    gradient_cosine: float
    """Cosine between a token's gradients of forward KL, for a stand-in student's logits, under live and stored
    targets."""
    mean_gradient_cosine: float
    """The same for the mean gradient of all tokens. It is close to 1 if errors average out, as unbiased errors do."""


@dataclass(frozen=True)
class SpanFidelity:
    """Distances of stored spans from the live teacher, in nats: means over tokens, and the greatest."""

    tokens: int
    log_p: float
    """Of the log-probabilities of the tokens."""
    log_mass: float
    """Of the logarithms of the word masses."""
    greatest: float
    """Of both."""


def span_fidelity(live: TokenNumbers, stored: TokenNumbers) -> SpanFidelity:
    """Compare stored and live numbers of the same tokens."""
    pairs = (live.log_p, stored.log_p.cpu()), (live.log_mass, stored.log_mass.cpu())
    # Where both are minus infinity, there is no distance.
    gaps = torch.stack([(one - other).abs().nan_to_num(0.0, posinf=math.inf).double() for one, other in pairs])
    log_p, log_mass = gaps.mean(1).tolist()
    return SpanFidelity(len(live.log_p), log_p, log_mass, gaps.max().item())


def fidelity(
    live: LogitsTarget | HiddenTarget, stored: SparseTarget | HiddenTarget, vocabulary: int, temperature: float = 1.0
) -> Fidelity:
    """Compare stored and live targets of the same N tokens at one temperature, a few rows at a time."""
    sums = torch.zeros(4, dtype=torch.float64)
    mean_live, mean_stored = torch.zeros(2, vocabulary, dtype=torch.float64)
    tokens = 0
    for rows, logits in logit_rows(live, vocabulary):
        log_p = torch.log_softmax(logits / temperature, -1)
        student = torch.softmax(logits / (temperature * STAND_IN_TEMPERATURE), -1)
        dense, kept_kl, gradient = _stored(stored, rows, log_p, student, temperature)
        own = student - log_p.exp()
        kl = (log_p.exp() * (log_p - dense)).nan_to_num(0.0, posinf=math.inf).sum(-1)
        variation = 0.5 * (log_p.exp() - dense.exp()).abs().sum(-1)
        cosine = torch.nn.functional.cosine_similarity(own, gradient, dim=-1)
        sums += torch.stack([part.double().sum().cpu() for part in (kl, kept_kl, variation, cosine)])
        mean_live += own.sum(0).double().cpu()
        mean_stored += gradient.sum(0).double().cpu()
        tokens += len(logits)
    of_means = torch.nn.functional.cosine_similarity(mean_live, mean_stored, dim=0)
    means = (sums / max(tokens, 1)).tolist()
    return Fidelity(tokens, means[0], means[1], means[2], means[3], of_means.item())


def _stored(
    stored: SparseTarget | HiddenTarget,
    rows: slice,
    log_p: Float[Tensor, "n V"],
    student: Float[Tensor, "n V"],
    temperature: float,
) -> tuple[Float[Tensor, "n V"], Float[Tensor, "n"], Float[Tensor, "n V"]]:
    """Stored log-probabilities over the vocabulary, KL over the kept tokens, and the student's gradient."""
    if isinstance(stored, HiddenTarget):
        part = HiddenTarget(stored.hidden[rows], stored.head)
        logits = torch.cat([logits for _, logits in logit_rows(part, log_p.shape[1])])
        dense = torch.log_softmax(logits / temperature, -1)
        return dense, (log_p.exp() * (log_p - dense)).sum(-1), student - dense.exp()
    ids, log_probs, log_tail = stored.ids[rows], stored.log_probs[rows], stored.log_tail[rows]
    mass = torch.zeros_like(log_p).scatter_add_(-1, ids, log_probs.exp())
    kept = mass > 0
    others = (~kept).sum(-1)
    dense = torch.where(kept, mass.log(), (log_tail - others.log())[:, None])
    p_rest = log_p.exp().masked_fill(kept, 0.0).sum(-1)
    kl = torch.where(kept, log_p.exp() * (log_p - dense), 0.0).sum(-1)
    kl += torch.where(p_rest > 0, p_rest * (p_rest.log() - log_tail), 0.0)
    student_rest = student.masked_fill(kept, 0.0).sum(-1)
    share = student / student_rest.clamp_min(torch.finfo(student.dtype).tiny)[:, None] * log_tail.exp()[:, None]
    return dense, kl, student - torch.where(kept, mass, share)
