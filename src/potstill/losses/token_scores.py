"""Scores per token, for evaluation: how well a model predicts, and its distance from its teacher. No gradient."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import log_softmax

from potstill.losses.chunked import MEMORY_BUDGET, check_labels
from potstill.losses.logit_chunks import GivenLogits, LogitsSource, ProductInChunks, product_dtype
from potstill.losses.loss import Loss
from potstill.losses.pairing import Pairing, check_shapes
from potstill.losses.row_blocks import RowBlock, mixed, rows_in_chunks, small_blocks, values_and_gradient
from potstill.losses.teacher_target import MixedTarget, SparseTarget, TeacherTarget, leaves
from potstill.models.head import Head


@torch.no_grad()
def score_tokens(
    hidden: Float[Tensor, "N H"],
    head: Head | None,
    labels: Int[Tensor, "N"],
    target: TeacherTarget | None = None,
    *,
    vocabulary: int | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> dict[str, Tensor]:
    """Numbers per supervised token, each [N].

    Always ``nll``: -log p of the label. With a target also ``forward_kl``: KL(q‖p) at the temperature of a sparse
    target's capture, otherwise at 1, never multiplied by T²; and ``agreement``: whether student and teacher have the
    same most probable id. With a dense target also ``teacher_nll``: -log q of the label.

    Args:
        hidden: last hidden states at supervised tokens; logits where ``head`` is None.

    Raises:
        UserError: as ``chunked.distillation_loss``.
    """
    width = hidden.shape[1] if head is None else len(head.weight)
    losses = [Loss("cross_entropy")]
    if target is not None:
        check_shapes(target, len(hidden), width, vocabulary)
        losses.append(Loss("forward_kl", temperature=_temperature(target)))
    pairing = Pairing.of(losses, target)
    vocabulary = vocabulary or width
    student: LogitsSource
    if head is None:
        student = GivenLogits(hidden, vocabulary)
    else:
        student = ProductInChunks(hidden, head, vocabulary, product_dtype(hidden, head.weight))
    if not len(hidden):
        return {name: hidden.new_zeros(0) for name in _names(target)}
    check_labels(labels, vocabulary)
    found = []
    chunks = rows_in_chunks(student, target, labels, vocabulary, memory_budget)
    with torch.autocast(hidden.device.type, enabled=False):
        for _, _, rows in chunks:
            found += [_scores(pairing, target, block) for block in small_blocks(rows)]
    return {name: torch.cat([scores[name] for scores in found]) for name in _names(target)}


def _names(target: TeacherTarget | None) -> list[str]:
    if target is None:
        return ["nll"]
    is_dense = not any(isinstance(leaf, SparseTarget) for leaf in leaves(target))
    return ["nll", "forward_kl", "agreement"] + ["teacher_nll"] * is_dense


def _temperature(target: TeacherTarget) -> float:
    return next((leaf.temperature for leaf in leaves(target) if isinstance(leaf, SparseTarget)), 1.0)


def _scores(pairing: Pairing, target: TeacherTarget | None, rows: RowBlock) -> dict[str, Tensor]:
    values, _ = values_and_gradient(pairing, rows, [0.0] * len(pairing.losses), with_gradient=False)
    scores = {"nll": values[0]}
    if target is not None:
        loss = pairing.losses[1]
        scores["forward_kl"] = values[1] / loss.scale
        if rows.sparse:
            teacher = _most_probable(target, rows)
        else:
            logits = mixed(target, (leaf.finished() for leaf in rows.teachers), 1.0)
            teacher = logits.argmax(-1)
            scores["teacher_nll"] = -log_softmax(logits, dim=-1).gather(1, rows.labels[:, None])[:, 0]
        scores["agreement"] = rows.student.finished().argmax(-1) == teacher
    return scores


def _most_probable(target: TeacherTarget, rows: RowBlock) -> Int[Tensor, "N"]:
    """The teachers' most probable id, by their kept entries where they are sparse."""
    probabilities = torch.zeros_like(rows.student.finished())
    dense, sparse = iter(rows.teachers), iter(rows.sparse)
    for leaf, weight in _weighted(target):
        if isinstance(leaf, SparseTarget):
            kept = next(sparse)
            probabilities.scatter_add_(1, kept.ids.long(), weight * kept.log_probs.to(probabilities.dtype).exp())
        else:
            probabilities += weight * next(dense).finished().softmax(-1)
    return probabilities.argmax(-1)


def _weighted(target: TeacherTarget, weight: float = 1.0) -> Iterator[tuple[TeacherTarget, float]]:
    if isinstance(target, MixedTarget):
        for member, share in zip(target.targets, target.weights, strict=True):
            yield from _weighted(member, weight * share)
    else:
        yield target, weight
