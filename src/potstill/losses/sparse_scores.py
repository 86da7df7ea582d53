"""Scores per token where a teacher tells only a part of its distribution, for evaluation. No gradient.

Student and teacher are compared on categories: the ids that every such teacher tells, and all other tokens together.
KL on categories is a lower bound of KL on tokens. The log-probability of a label is exact where the teacher tells it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from potstill.losses.chunked import MEMORY_BUDGET
from potstill.losses.divergences import FLOOR
from potstill.losses.policy_gradient import label_log_probs
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, MixedTarget, SparseTarget, TeacherTarget, leaves
from potstill.losses.token_scores import ScoresInBlocks, WholeDistributions, logits_in_blocks, most_probable

SMALLEST = 1e-12
"""The least mass of all other tokens together, where those that are told sum to one."""


@dataclass(frozen=True)
class Categories:
    """The ids on which models are compared, one row for each token; an unused entry has the id of any other."""

    ids: Int[Tensor, "N K"]
    used: Bool[Tensor, "N K"]

    @classmethod
    def of(cls, targets: Sequence[SparseTarget]) -> "Categories":
        """The ids that all of these targets tell."""
        first, *others = targets
        used = first.log_probs > -torch.inf
        for other in others:
            used &= ((first.ids[:, :, None] == other.ids[:, None, :]) & (other.log_probs > -torch.inf)[:, None, :]).any(
                -1
            )
        return cls(first.ids.long(), used)

    def rows(self, rows: slice) -> "Categories":
        """Some of the rows."""
        return Categories(self.ids[rows], self.used[rows])

    def told(self, target: SparseTarget) -> Float[Tensor, "N K"]:
        """A sparse target's log-probabilities of these ids, in float64."""
        if torch.equal(self.ids, target.ids.long()):
            return target.log_probs.double().masked_fill(~self.used, -torch.inf)
        same = (self.ids[:, :, None] == target.ids[:, None, :]) & (target.log_probs > -torch.inf)[:, None, :]
        found = torch.where(same, target.log_probs.double()[:, None, :], -torch.inf).amax(-1)
        return found.masked_fill(~self.used, -torch.inf)

    def of_logits(self, logits: Float[Tensor, "N V"]) -> Float[Tensor, "N K+1"]:
        """The log-probabilities of these ids, and of all others together."""
        log_p = logits.double().log_softmax(-1)
        kept = log_p.gather(1, self.ids).masked_fill(~self.used, -torch.inf)
        # An unused entry may have the id of a used one, and must not restore it.
        holes = torch.zeros_like(kept).masked_fill(self.used, -torch.inf)
        rest = log_p.scatter_add(1, self.ids, holes).logsumexp(-1, keepdim=True)
        return torch.cat([kept, rest], -1)


@dataclass(frozen=True)
class TeacherCategories:
    """A teacher, or an ensemble of them, of which some are sparse targets: its distribution over categories."""

    teacher: TeacherTarget
    categories: Categories
    told: Mapping[int, Float[Tensor, "N K"]]
    """The log-probabilities of each sparse target, by its identity."""
    whole: Sequence[WholeDistributions]
    """The members that are no sparse targets."""

    @classmethod
    def of(cls, teacher: TeacherTarget) -> Self:
        """The categories of a teacher with a sparse target."""
        assert not isinstance(teacher, MixedTarget) or teacher.mix == "probabilities", "the recipe refuses logits"
        sparse = [one for one in leaves(teacher) if isinstance(one, SparseTarget)]
        categories = Categories.of(sparse)
        whole = [one for one in leaves(teacher) if isinstance(one, HiddenTarget | LogitsTarget)]
        return cls(teacher, categories, {id(one): categories.told(one) for one in sparse}, whole)

    def rows(self, rows: slice, logits: Sequence[Float[Tensor, "n V"]]) -> tuple[Categories, Float[Tensor, "n K+1"]]:
        """The categories of some rows, and the teacher's log-probabilities of them.

        Args:
            rows: the rows.
            logits: those of the members in `whole`, at these rows.
        """
        here, own = self.categories.rows(rows), iter(logits)
        weights = self.teacher.weights if isinstance(self.teacher, MixedTarget) else (1.0,)
        kept = []
        for one, weight in zip(leaves(self.teacher), weights, strict=True):
            log_q = self.told[id(one)][rows] if id(one) in self.told else here.of_logits(next(own))[:, :-1]
            kept.append(log_q + torch.tensor(weight, dtype=torch.float64).log())
        log_q = torch.stack(kept).logsumexp(0)
        rest = torch.log(-torch.expm1(log_q.logsumexp(-1, keepdim=True).clamp(max=-SMALLEST)))
        return here, torch.cat([log_q, rest], -1)


@torch.no_grad()
def score_beside_sparse(
    models: Sequence[WholeDistributions | SparseTarget],
    labels: Int[Tensor, "N"],
    teacher: TeacherTarget,
    *,
    vocabulary: int | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> list[dict[str, Tensor]]:
    """As ``token_scores.score_side_by_side``, for teachers of which some are sparse targets at temperature 1.

    A model that is a sparse target has only its ``nll``; its distance from the teachers counts as 0.

    Raises:
        UserError: a sparse target does not tell a label's probability.
    """
    of_teachers = TeacherCategories.of(teacher)
    read = [one for one in models if not isinstance(one, SparseTarget)]
    found = [ScoresInBlocks(["nll", "forward_kl", "agreement"], labels) for _ in read]
    with torch.autocast(labels.device.type, enabled=False):
        outputs = [*read, *of_teachers.whole]
        for rows, logits in logits_in_blocks(outputs, labels, vocabulary, memory_budget) if outputs else ():
            here, log_q = of_teachers.rows(rows, logits[len(read) :])
            for scores, own in zip(found, logits, strict=False):
                scores.put(rows, _scores(own, labels[rows], log_q, here))
    scored = iter([scores.whole for scores in found])
    return [scores_of_sparse(one, labels) if isinstance(one, SparseTarget) else next(scored) for one in models]


def scores_of_sparse(target: SparseTarget, labels: Int[Tensor, "N"]) -> dict[str, Tensor]:
    """The scores of a model that is a sparse target: its ``nll`` alone.

    Raises:
        UserError: it does not tell a label's probability.
    """
    nll = -label_log_probs(target, labels)
    return {"nll": nll, "forward_kl": torch.zeros_like(nll), "agreement": torch.zeros_like(nll)}


def _scores(
    logits: Float[Tensor, "n V"], labels: Int[Tensor, "n"], log_q: Float[Tensor, "n K+1"], categories: Categories
) -> dict[str, Tensor]:
    log_p = categories.of_logits(logits).clamp_min(FLOOR)
    nll = -logits.log_softmax(-1).gather(1, labels[:, None])[:, 0]
    forward = torch.where(log_q > -torch.inf, log_q.exp() * (log_q.clamp_min(FLOOR) - log_p), 0.0).sum(-1)
    likeliest = categories.ids.gather(1, log_q[:, :-1].argmax(-1, keepdim=True))[:, 0]
    return {"nll": nll, "forward_kl": forward.to(nll), "agreement": most_probable(logits) == likeliest}
