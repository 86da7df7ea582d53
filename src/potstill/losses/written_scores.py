"""Scores of the tokens that a student wrote: how it and its teacher judge them. No gradient."""

from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import log_softmax

from potstill.losses.chunked import MEMORY_BUDGET
from potstill.losses.divergences import FLOOR
from potstill.losses.policy_gradient import label_log_probs
from potstill.losses.row_blocks import mixed
from potstill.losses.sparse_scores import Categories, TeacherCategories
from potstill.losses.teacher_target import (
    GroupedTarget,
    MixedTarget,
    SpanTarget,
    SparseTarget,
    TeacherTarget,
    leaves,
    rows_of,
    taught,
)
from potstill.losses.token_scores import ScoresInBlocks, WholeDistributions, logits_in_blocks

LIKELIEST = 16
"""The number of each model's likeliest ids that ``overlap`` compares."""
OF_STUDENT = ("student_log_probs", "entropy")
NAMES = ("student_log_probs", "teacher_log_probs", "reverse_kl", "forward_kl", "entropy", "overlap")


@torch.no_grad()
def score_written(
    student: WholeDistributions,
    labels: Int[Tensor, "N"],
    teacher: TeacherTarget | GroupedTarget,
    *,
    vocabulary: int | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> dict[str, Float[Tensor, "N"]]:
    """Numbers per written token, [N] each, at temperature 1, with p the student and q the teacher.

    - ``student_log_probs``, ``teacher_log_probs``: log p and log q of the written id, in nats;
    - ``reverse_kl``, ``forward_kl``: KL(p‖q) and KL(q‖p), in nats;
    - ``entropy``: of p, in nats;
    - ``overlap``: the share of the student's ``LIKELIEST`` ids that are among the teacher's. Impossible ids are left
      out, and teacher's ids as likely as its last one count.

    Of a teacher of another tokenizer, only ``student_log_probs`` and ``entropy`` are told: it knows none of the tokens.

    All are finite: a logarithm below ``divergences.FLOOR``, such as that of an impossible token, counts as it. Autocast
    counts, as in ``chunked.distillation_loss``.

    Args:
        student: its outputs at the written tokens.
        labels: the written ids.
        teacher: its outputs at the same tokens. Where it is a sparse target, or has one as a member, the divergences
            are those on categories (``sparse_scores``), and ``overlap`` counts the ids that it tells.

    Raises:
        UserError: as ``chunked.distillation_loss``.
    """
    if isinstance(teacher, GroupedTarget):
        return _scores_of_groups(student, labels, teacher, vocabulary, memory_budget)
    if any(isinstance(one, SpanTarget) for one in leaves(teacher)):
        return _of_student_alone(student, labels, vocabulary, memory_budget)
    if any(isinstance(one, SparseTarget) for one in leaves(teacher)):
        return _beside_sparse(student, labels, teacher, vocabulary, memory_budget)
    members = cast(list[WholeDistributions], list(leaves(teacher)))
    blocks = logits_in_blocks([student, *members], labels, vocabulary, memory_budget)
    whole, found = cast(WholeDistributions | MixedTarget, teacher), ScoresInBlocks(NAMES, labels)
    with torch.autocast(labels.device.type, enabled=False):
        for rows, (own, *theirs) in blocks:
            found.put(rows, _scores(own, mixed(whole, iter(theirs), 1.0), labels[rows]))
    return found.whole


def _scores_of_groups(
    student: WholeDistributions,
    labels: Int[Tensor, "N"],
    teacher: GroupedTarget,
    vocabulary: int | None,
    memory_budget: int,
) -> dict[str, Float[Tensor, "N"]]:
    found, first = ScoresInBlocks(NAMES, labels), 0
    for group in teacher.groups:
        last = first + group.tokens
        own = cast(WholeDistributions, rows_of(student, first, last))
        rows = slice(first, last)
        scores = score_written(own, labels[rows], taught(group), vocabulary=vocabulary, memory_budget=memory_budget)
        found.put(rows, scores)
        first = last
    return found.whole


def _of_student_alone(
    student: WholeDistributions, labels: Int[Tensor, "N"], vocabulary: int | None, memory_budget: int
) -> dict[str, Float[Tensor, "N"]]:
    found = ScoresInBlocks(OF_STUDENT, labels)
    with torch.autocast(labels.device.type, enabled=False):
        for rows, (own,) in logits_in_blocks([student], labels, vocabulary, memory_budget):
            log_p = log_softmax(own, dim=-1).clamp_min_(FLOOR)
            numbers = (log_p.gather(1, labels[rows, None])[:, 0], -torch.linalg.vecdot(log_p.exp(), log_p))
            found.put(rows, dict(zip(OF_STUDENT, numbers, strict=True)))
    return found.whole


def _beside_sparse(
    student: WholeDistributions,
    labels: Int[Tensor, "N"],
    teacher: TeacherTarget,
    vocabulary: int | None,
    memory_budget: int,
) -> dict[str, Float[Tensor, "N"]]:
    of_teachers, found = TeacherCategories.of(teacher), ScoresInBlocks(NAMES, labels)
    told = label_log_probs(teacher, labels, vocabulary=vocabulary).clamp_min(FLOOR)
    with torch.autocast(labels.device.type, enabled=False):
        blocks = logits_in_blocks([student, *of_teachers.whole], labels, vocabulary, memory_budget)
        for rows, (own, *theirs) in blocks:
            here, log_q = of_teachers.rows(rows, theirs)
            at, log_p = here.of_logits(own).clamp_min(FLOOR), log_softmax(own, dim=-1).clamp_min_(FLOOR)
            # An unused entry is impossible for both.
            gap = at - log_q.clamp_min(FLOOR)
            numbers = (
                log_p.gather(1, labels[rows, None])[:, 0],
                told[rows],
                torch.linalg.vecdot(at.exp(), gap),
                -torch.linalg.vecdot(log_q.exp(), gap),
                -torch.linalg.vecdot(log_p.exp(), log_p),
                _overlap_with(own, here, log_q[:, :-1]),
            )
            found.put(rows, {name: one.to(log_p) for name, one in zip(NAMES, numbers, strict=True)})
    return found.whole


def _overlap_with(student: Float[Tensor, "n V"], told: Categories, log_q: Float[Tensor, "n K"]) -> Float[Tensor, "n"]:
    """The share of the student's likeliest ids that are among the teacher's likeliest ones that it tells."""
    count = min(LIKELIEST, student.shape[1], log_q.shape[1])
    values, ids = student.topk(count)
    best = log_q.topk(count)
    theirs = told.ids.gather(1, best.indices).masked_fill(best.values == -torch.inf, -1)
    possible = values > -torch.inf
    shared = possible & (ids[:, :, None] == theirs[:, None, :]).any(-1)
    return shared.sum(-1) / possible.sum(-1)


def _scores(
    student: Float[Tensor, "n V"], teacher: Float[Tensor, "n V"], labels: Int[Tensor, "n"]
) -> dict[str, Float[Tensor, "n"]]:
    log_p, log_q = (log_softmax(logits, dim=-1).clamp_min_(FLOOR) for logits in (student, teacher))
    p, gap = log_p.exp(), log_p - log_q
    of_student, of_teacher = (log.gather(1, labels[:, None])[:, 0] for log in (log_p, log_q))
    # The ratio of each token, not the difference of two sums: the sums are large where the distance is small.
    reverse, forward = torch.linalg.vecdot(p, gap), -torch.linalg.vecdot(log_q.exp(), gap)
    scores = (of_student, of_teacher, reverse, forward, -torch.linalg.vecdot(p, log_p), _overlap(student, teacher))
    return dict(zip(NAMES, scores, strict=True))


def _overlap(student: Float[Tensor, "n V"], teacher: Float[Tensor, "n V"]) -> Float[Tensor, "n"]:
    count = min(LIKELIEST, student.shape[1])
    values, ids = student.topk(count)
    at_teacher, least = teacher.gather(1, ids), teacher.topk(count).values[:, -1:]
    possible = values > -torch.inf
    shared = possible & (at_teacher >= least) & (at_teacher > -torch.inf)
    return shared.sum(-1) / possible.sum(-1)
