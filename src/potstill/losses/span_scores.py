"""Span scores: a teacher's two numbers for each of its tokens, from what it tells of them, without gradient."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from potstill.losses.policy_gradient import label_log_probs
from potstill.losses.span_likelihood import LEAST_LOG_MASS, TokenNumbers
from potstill.losses.span_passes import numbers_of_rows
from potstill.losses.teacher_target import SparseTarget
from potstill.losses.token_scores import WholeDistributions, logits_in_chunks


@torch.no_grad()
def numbers_of(
    outputs: WholeDistributions,
    labels: Int[Tensor, "N"],
    begins_word: Bool[Tensor, "V"],
    ends_turn: Bool[Tensor, "V"] | None = None,
    compile: bool = False,
) -> TokenNumbers:
    """The numbers of a model's predictions.

    Args:
        outputs: the model's outputs at its supervised tokens.
        labels: the tokens that follow.
        begins_word: whether the bytes of each id begin with a space; ids beyond are padding.
        ends_turn: whether each id ends a turn; None: none does.
        compile: whether to fuse the passes over the vocabulary (``span_passes.py``).

    Raises:
        UserError: the outputs and the labels do not fit.
    """
    if not len(labels):
        nothing = torch.zeros(0, device=labels.device)
        return TokenNumbers(nothing, nothing)
    found = []
    with torch.autocast(labels.device.type, enabled=False):
        for rows, (logits,) in logits_in_chunks([outputs], labels, len(begins_word)):
            found.append(numbers_of_rows(logits, labels[rows], begins_word, ends_turn, compile)[0])
    return TokenNumbers(*(torch.cat(each) for each in zip(*found, strict=True)))


@torch.no_grad()
def numbers_of_likeliest(
    told: SparseTarget,
    labels: Int[Tensor, "N"],
    begins_word: Bool[Tensor, "V"],
    ends_turn: Bool[Tensor, "V"] | None = None,
) -> tuple[TokenNumbers, Float[Tensor, "N"]]:
    """The numbers of predictions of which only the likeliest tokens and the label are told; and the mass of the others.

    The log-probability of the label is exact. Of the word mass, the told tokens have a part, and nothing is known of
    the others' part. It is estimated: words have the same share of the untold mass t as of the told mass, so the told
    part is divided by 1 - t. The true mass is at least the told part, and at most that part and t. So is the estimate,
    and its error is at most t.

    Args:
        told: what is told, the label among it.
        labels: the tokens that follow.
        begins_word: as in :func:`numbers_of`.
        ends_turn: as in :func:`numbers_of`. Where it is the label, nothing is estimated.
    """
    ids, log_probs = told.ids.long(), told.log_probs.double()
    is_word = (ids < len(begins_word)) & begins_word[ids.clamp_max(len(begins_word) - 1)]
    words = log_probs.masked_fill(~is_word, -torch.inf).logsumexp(-1)
    log_mass = (words - log_probs.logsumexp(-1)).clamp(LEAST_LOG_MASS, 0.0)
    log_p, log_mass = label_log_probs(told, labels), log_mass.float()
    if ends_turn is not None:
        log_mass = torch.where(ends_turn[labels], log_p.float().clamp_min(LEAST_LOG_MASS), log_mass)
    return TokenNumbers(log_p, log_mass), told.log_tail.exp()
