"""The naive losses, in float64 and with autograd: the reference of the chunked path."""

import torch
from torch import Tensor

from potstill.losses import divergences
from potstill.losses.divergences import FLOOR, head_share, head_threshold
from potstill.losses.loss import Loss
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, MixedTarget, SparseTarget, TeacherTarget
from potstill.models.head import Head


def logits_of(hidden: Tensor, head: Head, vocabulary: int) -> Tensor:
    logits = hidden @ head.weight.T
    if head.bias is not None:
        logits = logits + head.bias
    logits = logits * head.scale
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return logits[:, :vocabulary]


def teacher_log_probs(target: TeacherTarget, temperature: float, vocabulary: int) -> Tensor:
    if isinstance(target, MixedTarget) and target.mix == "logits":
        each = [teacher_logits(member, vocabulary) for member in target.targets]
        return sum(w * t for w, t in zip(target.weights, each, strict=True)).div(temperature).log_softmax(-1)
    if isinstance(target, MixedTarget):
        each = [teacher_log_probs(member, temperature, vocabulary).exp() for member in target.targets]
        return sum(w * q for w, q in zip(target.weights, each, strict=True)).log()
    return (teacher_logits(target, vocabulary) / temperature).log_softmax(-1)


def teacher_logits(target: TeacherTarget, vocabulary: int) -> Tensor:
    if isinstance(target, HiddenTarget):
        return logits_of(target.hidden.double(), as_double(target.head), vocabulary)
    assert isinstance(target, LogitsTarget)
    return target.logits[:, :vocabulary]


def as_double(head: Head) -> Head:
    return Head(head.weight.double(), None if head.bias is None else head.bias.double(), head.scale, head.softcap)


def per_token(loss: Loss, logits: Tensor, labels: Tensor, target: TeacherTarget | None, vocabulary: int) -> Tensor:
    if loss.kind == "cross_entropy":
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    assert target is not None
    if isinstance(target, SparseTarget):
        return sparse_per_token(loss, logits, target)
    if isinstance(target, MixedTarget) and any(isinstance(member, SparseTarget) for member in target.targets):
        each = [per_token(loss, logits, labels, member, vocabulary) for member in target.targets]
        return sum(w * d for w, d in zip(target.weights, each, strict=True))
    log_q = teacher_log_probs(target, loss.temperature, vocabulary)
    return diverge(loss, logits, log_q * loss.temperature)


def diverge(loss: Loss, student: Tensor, teacher: Tensor) -> Tensor:
    extra = {name: getattr(loss, name) for name in ("beta", "alpha") if getattr(loss, name) is not None}
    return getattr(divergences, loss.kind)(student, teacher, loss.temperature, **extra)


def sparse_per_token(loss: Loss, logits: Tensor, target: SparseTarget) -> Tensor:
    """Row by row over the used entries only, with the tail as one more category."""
    log_p = (logits / loss.temperature).log_softmax(-1)
    rows = []
    for row in range(len(target)):
        used = target.log_probs[row] > -torch.inf
        ids, log_q = target.ids[row][used].long(), target.log_probs[row][used].to(log_p.dtype)
        kept = log_p[row, ids]
        if target.sampled:
            rows.append(loss.temperature**2 * (log_q.exp() * (log_q - kept)).sum())
            continue
        rest = torch.ones(log_p.shape[1], dtype=torch.bool)
        rest[ids] = False
        student, teacher = kept, log_q
        if rest.any():
            student = torch.cat([kept, log_p[row, rest].logsumexp(0)[None]])
            teacher = torch.cat([log_q, target.log_tail[row].to(log_p.dtype)[None]])
        rows.append(_categories(loss, student[None], teacher[None], bool(rest.any())))
    return torch.cat([row.reshape(1) for row in rows])


def _categories(loss: Loss, log_p: Tensor, log_q: Tensor, has_tail: bool) -> Tensor:
    if loss.kind != "adaptive_kl":
        return diverge(loss, log_p * loss.temperature, log_q * loss.temperature)
    log_p, log_q = log_p.clamp_min(FLOOR), log_q.clamp_min(FLOOR)
    kept = log_q[:, :-1] if has_tail else log_q
    head = log_q >= head_threshold(kept)
    head[:, kept.shape[1] :] = False
    share = head_share(log_p.exp().detach(), log_q.exp(), head)
    forward, reverse = (log_q.exp() * (log_q - log_p)).sum(-1), (log_p.exp() * (log_p - log_q)).sum(-1)
    return loss.temperature**2 * (share * forward + (1 - share) * reverse)


def naive_loss(
    hidden: Tensor,
    head: Head,
    labels: Tensor,
    target: TeacherTarget | None,
    losses: list[Loss],
    denominator: float,
    vocabulary: int | None = None,
    label_weights: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    vocabulary = vocabulary or len(head.weight)
    logits = logits_of(hidden, head, vocabulary)
    means = {}
    for loss in losses:
        values = per_token(loss, logits, labels, target, vocabulary)
        if label_weights is not None and not loss.needs_teacher:
            values = values * label_weights
        means[loss.kind] = values.sum() / denominator
    return sum(loss.weight * means[loss.kind] for loss in losses), means
