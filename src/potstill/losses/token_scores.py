"""Scores per token, for evaluation: how well models predict, and their distance from a teacher. No gradient."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import log_softmax

from potstill.losses.chunked import MEMORY_BUDGET, check_labels
from potstill.losses.divergences import FLOOR
from potstill.losses.logit_chunks import CastWeights, Logits, chunks, teacher_products
from potstill.losses.pairing import check_shapes
from potstill.losses.row_blocks import block_logits, mixed, small_slices
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, MixedTarget, leaves
from potstill.models.head import Head

WholeDistributions = HiddenTarget | LogitsTarget
"""A model's outputs at N supervised tokens: a student's or a teacher's."""


def score_tokens(
    hidden: Float[Tensor, "N H"],
    head: Head | None,
    labels: Int[Tensor, "N"],
    *,
    vocabulary: int | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> dict[str, Tensor]:
    """``nll``, -log p of the label, for each of one model's supervised tokens: [N].

    Args:
        hidden: last hidden states at supervised tokens; logits where ``head`` is None.

    Raises:
        UserError: a label is not an id of the vocabulary.
    """
    outputs = LogitsTarget(hidden) if head is None else HiddenTarget(hidden, head)
    return score_side_by_side([outputs], labels, vocabulary=vocabulary, memory_budget=memory_budget)[0]


@torch.no_grad()
def score_side_by_side(
    models: Sequence[WholeDistributions],
    labels: Int[Tensor, "N"],
    teacher: WholeDistributions | MixedTarget | None = None,
    *,
    vocabulary: int | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> list[dict[str, Tensor]]:
    """Numbers per supervised token for each model, [N] each. The teacher's logits are computed once for all models.

    Always ``nll``: -log p of the label. With a teacher also ``forward_kl``: KL(q‖p); and ``agreement``: whether model
    and teacher have the same most probable id.

    Args:
        models: their outputs at the same tokens. A model may be the teacher, or one of an ensemble's members. If it is
            the same object, its logits are computed only once.
        teacher: without sparse targets.

    Raises:
        UserError: as ``chunked.distillation_loss``.
    """
    members = cast(list[WholeDistributions], list(leaves(teacher)))
    names = ["nll"] if teacher is None else ["nll", "forward_kl", "agreement"]
    found = [ScoresInBlocks(names, labels) for _ in models]
    with torch.autocast(labels.device.type, enabled=False):
        for rows, blocks in _products_in_blocks([*models, *members], labels, vocabulary, memory_budget):
            for scores, one in zip(found, _scores_of(blocks, len(models), labels[rows], teacher), strict=True):
                scores.put(rows, one)
    return [scores.whole for scores in found]


def _products_in_blocks(
    models: Sequence[WholeDistributions], labels: Int[Tensor, "N"], vocabulary: int | None, memory_budget: int
) -> Iterator[tuple[slice, list[Logits]]]:
    """The products of all models for a few tokens at a time. A model that is given twice has one object."""
    # A CPU's cache has to hold the rows of a model and those of its teacher; a GPU has to be kept busy.
    together = 2 if len(models) > 1 and labels.device.type == "cpu" else 1
    for chunk, products in logits_in_chunks(models, labels, vocabulary, memory_budget):
        width = products[0].product.shape[1]
        for rows in small_slices(len(products[0]), together * width, block_logits(labels.device, memory_budget)):
            once = {id(one): one.rows(rows.start, rows.stop) for one in products}
            yield slice(chunk.start + rows.start, chunk.start + rows.stop), [once[id(one)] for one in products]


def _scores_of(
    blocks: Sequence[Logits],
    models: int,
    labels: Int[Tensor, "n"],
    teacher: WholeDistributions | MixedTarget | None,
) -> Iterator[dict[str, Tensor]]:
    """The scores of each model for a few tokens. Of the models, only one's logits in fp32 are there at a time.

    Args:
        blocks: the products of all models, and then of the teacher's members. A model that is a member is the same
            object.
        models: how many models there are.
        labels: of the same tokens.
        teacher: as for :func:`score_side_by_side`.
    """
    members, of_teacher = blocks[models:], None
    if teacher is not None:
        of_teacher = _TeacherRows.of(mixed(teacher, (one.finished() for one in members), 1.0), labels)
    itself = None if isinstance(teacher, MixedTarget) or not members else members[0]
    for one in blocks[:models]:
        own = of_teacher.own_scores if of_teacher is not None and one is itself else None
        yield own or _scores(one.finished(), labels, of_teacher)


def _width(outputs: WholeDistributions) -> int:
    return outputs.logits.shape[1] if isinstance(outputs, LogitsTarget) else len(outputs.head.weight)


def logits_in_blocks(
    models: Sequence[WholeDistributions],
    labels: Int[Tensor, "N"],
    vocabulary: int | None,
    memory_budget: int = MEMORY_BUDGET,
    casts: CastWeights | None = None,
) -> Iterator[tuple[slice, list[Float[Tensor, "n V"]]]]:
    """The logits of all models for a few tokens at a time, without gradient. Do not write to them.

    Autocast counts as it is at the call, not at the first block. Arguments and errors as :func:`logits_in_chunks`.
    """
    found = logits_in_chunks(models, labels, vocabulary, memory_budget, casts)

    def each() -> Iterator[tuple[slice, list[Float[Tensor, "n V"]]]]:
        for chunk, products in found:
            distinct = {id(product): product for product in products}
            width = products[0].product.shape[1]
            for rows in small_slices(len(products[0]), width, block_logits(labels.device, memory_budget)):
                finished = {key: one.rows(rows.start, rows.stop).finished() for key, one in distinct.items()}
                yield (
                    slice(chunk.start + rows.start, chunk.start + rows.stop),
                    [finished[id(product)] for product in products],
                )

    return each()


def logits_in_chunks(
    models: Sequence[WholeDistributions],
    labels: Int[Tensor, "N"],
    vocabulary: int | None,
    memory_budget: int = MEMORY_BUDGET,
    casts: CastWeights | None = None,
) -> Iterator[tuple[slice, list[Logits]]]:
    """The products of all models for as many tokens as the memory allows, without gradient. The next chunk overwrites
    them. A model that is given twice has one product.

    Arguments as ``chunked.distillation_loss``.

    Raises:
        UserError: the models and the labels do not fit: see ``pairing.check_shapes`` and ``chunked.check_labels``.
    """
    width = _width(models[0])
    for one in models:
        check_shapes(one, len(labels), width, vocabulary)
    if not len(labels):
        return iter(())
    compared = vocabulary or width
    check_labels(labels, compared)
    distinct = {id(one): one for one in models}
    sources = {key: teacher_products(one, compared, casts)[0] for key, one in distinct.items()}

    def each() -> Iterator[tuple[slice, list[Logits]]]:
        for first, last, most in chunks(len(labels), memory_budget, list(sources.values())):
            products = {key: source.logits(first, last, most) for key, source in sources.items()}
            yield slice(first, last), [products[id(one)] for one in models]
        for source in sources.values():
            source.close()

    return each()


class ScoresInBlocks:
    """Scores of N tokens that come some rows at a time, each kept in one tensor. Of a score that not all rows have,
    nothing is kept: rows of teachers with other tokenizers have fewer.

    Small tensors that stayed would lie where a freed block of logits was, so that the next block would not fit there,
    and a CPU's memory would grow by a block each time.

    Args:
        names: of the scores, for the case that there is no token.
        labels: of the tokens: [N].
    """

    def __init__(self, names: Sequence[str], labels: Int[Tensor, "N"]) -> None:
        self._names, self._labels = names, labels
        self._found: dict[str, Tensor] | None = None

    def put(self, rows: slice, scores: Mapping[str, Shaped[Tensor, "n"]]) -> None:
        """Take the scores of some rows."""
        if self._found is None:
            self._found = {name: one.new_empty(len(self._labels)) for name, one in scores.items()}
        self._found = {name: whole for name, whole in self._found.items() if name in scores}
        for name, whole in self._found.items():
            whole[rows] = scores[name]

    @property
    def whole(self) -> dict[str, Shaped[Tensor, "N"]]:
        """The scores of all tokens, by name."""
        if self._found is None:
            return {name: torch.zeros(0, device=self._labels.device) for name in self._names}
        return self._found


@dataclass(frozen=True)
class _TeacherRows:
    """What the scores of every model need of the teacher for a few tokens."""

    log_q: Float[Tensor, "n V"]
    q: Float[Tensor, "n V"]
    most_probable: Int[Tensor, "n"]
    nll: Float[Tensor, "n"]

    @classmethod
    def of(cls, logits: Float[Tensor, "n V"], labels: Int[Tensor, "n"]) -> "_TeacherRows":
        log_q = log_softmax(logits, dim=-1)
        nll = _nll(log_q, labels)
        log_q.clamp_min_(FLOOR)
        return cls(log_q, log_q.exp(), most_probable(logits), nll)

    @property
    def own_scores(self) -> dict[str, Tensor]:
        """Those of the teacher itself."""
        return {
            "nll": self.nll,
            "forward_kl": torch.zeros_like(self.nll),
            "agreement": torch.ones_like(self.most_probable, dtype=torch.bool),
        }


def _scores(logits: Float[Tensor, "n V"], labels: Int[Tensor, "n"], teacher: _TeacherRows | None) -> dict[str, Tensor]:
    log_p = log_softmax(logits, dim=-1)
    scores = {"nll": _nll(log_p, labels)}
    if teacher is not None:
        # The ratio of each token, not the difference of two sums: the sums are large where the distance is small.
        ratio = torch.sub(teacher.log_q, log_p.clamp_min_(FLOOR), out=log_p)
        scores["forward_kl"] = ratio.mul_(teacher.q).sum(-1)
        scores["agreement"] = most_probable(logits) == teacher.most_probable
    return scores


def _nll(log_p: Float[Tensor, "n V"], labels: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    return -log_p.gather(1, labels[:, None])[:, 0]


def most_probable(logits: Float[Tensor, "n V"]) -> Int[Tensor, "n"]:
    """The id with the greatest logit; of several, the first.

    On one thread of a Xeon, torch's ``argmax`` takes 25 times as long as NumPy's, and its ``max`` 8 times.
    """
    return torch.from_numpy(logits.numpy().argmax(-1)) if logits.device.type == "cpu" else logits.max(-1).indices
