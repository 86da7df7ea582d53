"""The policy gradient: it needs the teacher's log-probability of the written token only, not its whole distribution.

For a token y that the student wrote, with p the student and q the teacher:

    advantage  A = log q(y) - log p_old(y), without gradient
    ratio      r = p(y) / p_old(y)
    loss       -min(r A, clip(r, 1 - ε, 1 + ε) A)

p_old is the student that wrote y. -A is an estimate of the reverse KL from one sample (Thinking Machines 2025,
"On-Policy Distillation"). The clipped loss is that of PPO (Schulman et al. 2017, arXiv:1707.06347, equation 7).

The gradient is -r A ∇ log p(y), and 0 where the ratio is clipped: a cross-entropy with a weight for each token. So the
loss takes the path of every other loss, and logits are never in memory as a whole.
"""

from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import log_softmax

from potstill.errors import UserError
from potstill.losses.chunked import MEMORY_BUDGET, distillation_loss
from potstill.losses.divergences import FLOOR
from potstill.losses.logit_chunks import CastWeights
from potstill.losses.loss import Loss
from potstill.losses.pairing import check_shapes
from potstill.losses.row_blocks import mixed
from potstill.losses.teacher_target import (
    GroupedTarget,
    HiddenTarget,
    LogitsTarget,
    MixedTarget,
    SparseTarget,
    TeacherTarget,
    leaves,
    taught,
)
from potstill.losses.token_scores import WholeDistributions, logits_in_blocks
from potstill.models.head import Head, statistics_dtype

# No ratio is above e^20, so that none overflows. Where A < 0, clipping sets no upper limit.
_MOST_LOG_RATIO = 20.0


def policy_gradient_loss(
    states: Float[Tensor, "N states"],
    head: Head | None,
    labels: Int[Tensor, "N"],
    teacher_log_probs: Float[Tensor, "N"],
    written_log_probs: Float[Tensor, "N"] | None = None,
    *,
    clip: float,
    denominator: float | Tensor,
    vocabulary: int | None = None,
    memory_budget: int = MEMORY_BUDGET,
    compile: bool = False,
    casts: CastWeights | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """-Σ min(r A, clip(r, 1 - ``clip``, 1 + ``clip``) A) / ``denominator`` over the tokens that the student wrote.

    Differentiable as ``chunked.distillation_loss``, whose arguments these are. Log-probabilities of ``-inf`` count as
    ``divergences.FLOOR``. A token that the student cannot write any more has no gradient.

    Args:
        labels: the written ids.
        teacher_log_probs: log q of the written ids at temperature 1, as from ``label_log_probs``.
        written_log_probs: log p of the written ids when they were written; None: the student as it is now, with r = 1.
        clip: ε, above 0.

    Returns:
        The loss and, each a sum over the tokens divided by ``denominator``: ``policy_gradient``, which is the loss;
        ``reverse_kl_estimate``, of -A; ``clipped``, the number of tokens without gradient because of clipping.

    Raises:
        UserError: ``clip`` is not above 0, there is not one log-probability for each token, or a label is not an id of
            the vocabulary.
    """
    _check(clip, len(labels), teacher_log_probs=teacher_log_probs, written_log_probs=written_log_probs)
    student = LogitsTarget(states) if head is None else HiddenTarget(states, head)
    now = label_log_probs(student, labels, vocabulary=vocabulary, memory_budget=memory_budget, casts=casts)
    it = _surrogate(now, teacher_log_probs, written_log_probs, clip)
    weighted, _ = distillation_loss(
        states,
        head,
        labels,
        None,
        [Loss("cross_entropy")],
        denominator=denominator,
        vocabulary=vocabulary,
        memory_budget=memory_budget,
        compile=compile,
        casts=casts,
        label_weights=it.weights,
    )
    loss, estimate, clipped = (number.sum() / denominator for number in (-it.gain, -it.advantage, it.clipped))
    terms = {"policy_gradient": loss, "reverse_kl_estimate": estimate, "clipped": clipped}
    # The cross-entropy gives the gradient and no part of the value.
    return loss + (weighted - weighted.detach()), terms


def _check(clip: float, tokens: int, **log_probs: Tensor | None) -> None:
    if not clip > 0:
        raise UserError(f"clip must be above 0, not {clip}")
    for name, given in log_probs.items():
        if given is not None and given.shape != (tokens,):
            raise UserError(
                f"{name} must hold one number for each of the {tokens} written tokens, "
                f"but its shape is {list(given.shape)}"
            )


class _Surrogate(NamedTuple):
    """What PPO maximises for each token, and the weight of -log p in its gradient."""

    gain: Float[Tensor, "N"]
    advantage: Float[Tensor, "N"]
    weights: Float[Tensor, "N"]
    clipped: Bool[Tensor, "N"]


@torch.no_grad()
def _surrogate(
    now: Float[Tensor, "N"], teacher: Float[Tensor, "N"], written: Float[Tensor, "N"] | None, clip: float
) -> _Surrogate:
    log_p, log_q = now.clamp_min(FLOOR), teacher.to(now).clamp_min(FLOOR)
    log_old = log_p if written is None else written.to(now).clamp_min(FLOOR)
    advantage = log_q - log_old
    ratio = (log_p - log_old).clamp_max(_MOST_LOG_RATIO).exp()
    gain = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    clipped = torch.where(advantage > 0, ratio > 1 + clip, ratio < 1 - clip)
    weights = (ratio * advantage).masked_fill(clipped | (now == -torch.inf), 0.0)
    return _Surrogate(gain, advantage, weights, clipped)


@torch.no_grad()
def label_log_probs(
    target: TeacherTarget | GroupedTarget,
    labels: Int[Tensor, "N"],
    *,
    vocabulary: int | None = None,
    memory_budget: int = MEMORY_BUDGET,
    casts: CastWeights | None = None,
) -> Float[Tensor, "N"]:
    """The log-probability of each label at temperature 1, without gradient; ``-inf`` where it is impossible.

    Autocast counts, as in ``chunked.distillation_loss``, whose arguments these are.

    Raises:
        UserError: a sparse target that does not know a label's probability: one with random samples, one of another
            temperature, or one that keeps no number for the label; or target and labels that do not fit, such as
            labels without a teacher.
    """
    options: dict[str, Any] = {"vocabulary": vocabulary, "memory_budget": memory_budget, "casts": casts}
    if isinstance(target, GroupedTarget):
        of_groups = zip(target.groups, labels.split([group.tokens for group in target.groups]), strict=True)
        return torch.cat([label_log_probs(taught(group), own, **options) for group, own in of_groups])
    if isinstance(target, SparseTarget):
        return _kept_log_probs(target, labels)
    if isinstance(target, MixedTarget) and target.mix == "probabilities":
        each = [
            label_log_probs(member, labels, **options) + torch.tensor(weight, dtype=torch.float64).log()
            for member, weight in zip(target.targets, target.weights, strict=True)
        ]
        return torch.stack(each).logsumexp(0)
    models = list(leaves(target))
    if any(isinstance(model, SparseTarget) for model in models):
        raise UserError("an ensemble with sparse targets cannot be mixed as logits: mix it as probabilities")
    blocks = logits_in_blocks(cast(list[WholeDistributions], models), labels, vocabulary, memory_budget, casts)
    found = [torch.zeros(0, device=labels.device)]
    with torch.autocast(labels.device.type, enabled=False):
        for rows, logits in blocks:
            log_q = log_softmax(mixed(target, iter(logits), 1.0), dim=-1)
            found.append(log_q.gather(1, labels[rows, None])[:, 0])
    return torch.cat(found)


def _kept_log_probs(target: SparseTarget, labels: Int[Tensor, "N"]) -> Float[Tensor, "N"]:
    check_shapes(target, len(labels), 0, None)
    if target.sampled:
        raise UserError(
            "the teacher's targets are random samples, which do not tell the probability of a written token: "
            "use a teacher that scores every token, such as a live one"
        )
    if target.temperature != 1:
        raise UserError(
            "a policy gradient needs log-probabilities at temperature 1, but the teacher's targets have temperature "
            f"{target.temperature:g}: capture them at 1"
        )
    log_probs = target.log_probs.to(statistics_dtype(target.log_probs.dtype))
    at_label = log_probs.masked_fill(target.ids != labels[:, None], -torch.inf).logsumexp(-1)
    # A row without a tail holds all tokens that are possible.
    unknown = (at_label == -torch.inf) & (target.log_tail > -torch.inf)
    if unknown.any():
        first = int(unknown.nonzero()[0])
        raise UserError(
            f"the teacher's store keeps no number for token {int(labels[first])}, supervised token {first}: "
            "use a teacher that scores every token, such as a live one"
        )
    return at_label
