"""TeacherTarget: a teacher's distributions at N supervised tokens, in the form that every loss takes.

A loss does not know where a target came from: a live model, a store of captured targets, a server, or several of them.
Rows are in the order of the supervised tokens of the student's batch, row-major over [B, T].
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import fsum
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from potstill.errors import UserError
from potstill.models.head import Head


@dataclass(frozen=True)
class LogitsTarget:
    """The teacher's logits over its whole vocabulary."""

    logits: Float[Tensor, "N V"]

    def __len__(self) -> int:
        return len(self.logits)


@dataclass(frozen=True)
class HiddenTarget:
    """The teacher's last hidden states and its head. It is exact, and only one chunk of logits is in memory."""

    hidden: Float[Tensor, "N Ht"]
    head: Head

    def __len__(self) -> int:
        return len(self.hidden)


@dataclass(frozen=True)
class SparseTarget:
    """Some of the teacher's log-probabilities, and the exact mass of all other tokens together.

    ``exp(log_probs).sum(-1) + exp(log_tail) == 1`` in every row. An unused entry has any id and a log-probability of
    ``-inf``. ``log_tail`` is ``-inf`` where no mass is left. No id is used twice in a row.

    ``sampled`` says that ids were drawn from the teacher's distribution, and that ``log_probs`` are unbiased estimates.
    They are right on average only, so they suit losses that are linear in the teacher's probabilities (forward KL).
    Other losses refuse them. The samples stand for the whole distribution: ``log_tail`` is ``-inf`` and not used, and
    an id may occur twice.
    """

    ids: Int[Tensor, "N K"]
    log_probs: Float[Tensor, "N K"]
    log_tail: Float[Tensor, "N"]
    temperature: float = 1.0
    sampled: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, first: int, last: int) -> "SparseTarget":
        """Rows ``first`` to ``last``, as a view."""
        return replace(
            self,
            ids=self.ids[first:last],
            log_probs=self.log_probs[first:last],
            log_tail=self.log_tail[first:last],
        )

    def at(self, places: Int[Tensor, "n"]) -> "SparseTarget":
        """The rows at some places, as copies."""
        return replace(self, ids=self.ids[places], log_probs=self.log_probs[places], log_tail=self.log_tail[places])


@dataclass(frozen=True)
class MixedTarget:
    """An ensemble: the weighted mean of several teachers' probabilities, or of their logits. Weights sum to one.

    Teachers of other tokenizers than the student's have no tokens in common, and each has spans of its own. Of these
    ensembles the losses are averaged: the mean of each teacher's loss.

    Raises:
        UserError: there are no teachers, not one weight per teacher, or weights that are negative or do not sum to one.
    """

    targets: tuple["TeacherTarget", ...]
    weights: tuple[float, ...]
    mix: Literal["probabilities", "logits"] = "probabilities"

    def __post_init__(self) -> None:
        if not self.targets or len(self.targets) != len(self.weights):
            raise UserError(f"an ensemble of {len(self.targets)} teachers has {len(self.weights)} weights")
        if min(self.weights) < 0 or abs(fsum(self.weights) - 1) > 1e-6:
            raise UserError(f"an ensemble's weights must be at least 0 and sum to one, not {list(self.weights)}")

    def __len__(self) -> int:
        return len(self.targets[0])


@dataclass(frozen=True)
class PairedRows:
    """The distributions of a teacher of another tokenizer where both tokenizations stand at the same byte."""

    whole: LogitsTarget | HiddenTarget
    """One row for each of the student's tokens at whose byte the teacher has one too, in their order."""
    is_paired: Bool[Tensor, "N"]
    """Which of the student's N tokens these are."""
    ours: Int[Tensor, "K"]
    """The student's ids of the tokens that are the same bytes in both vocabularies."""
    theirs: Int[Tensor, "K"]
    """The teacher's ids of the same tokens."""

    def rows(self, first: int, last: int) -> "PairedRows":
        """What is said of tokens ``first`` to ``last``, as views. Their number of rows is read from a GPU."""
        before, inside = torch.stack([self.is_paired[:first].sum(), self.is_paired[first:last].sum()]).tolist()
        whole = rows_of(self.whole, before, before + inside)
        assert isinstance(whole, LogitsTarget | HiddenTarget)
        return replace(self, whole=whole, is_paired=self.is_paired[first:last])

    @property
    def vocabulary(self) -> int:
        """The number of the teacher's ids."""
        return self.whole.logits.shape[1] if isinstance(self.whole, LogitsTarget) else len(self.whole.head.weight)


@dataclass(frozen=True)
class SpanTarget:
    """What a teacher of another tokenizer says of the spans of text in the student's batch (``span_likelihood.py``)."""

    spans: Int[Tensor, "S 2"]
    """The student's first token of each span, and the token after its last."""
    opens: Bool[Tensor, "S"]
    """Whether a span begins at an opening."""
    group: Int[Tensor, "S"]
    """The number of the group that each span is joined to. There are at most S groups."""
    log_q: Float[Tensor, "S"]
    """The teacher's log-likelihood of each group."""
    used: Bool[Tensor, "S"]
    """Whether a group is compared."""
    begins_word: Bool[Tensor, "V"]
    """Whether the bytes of each of the student's ids begin with a space."""
    tokens: int
    """The student's N supervised tokens."""
    pairs: PairedRows | None = None
    """The teacher's distributions, for the losses that compare them."""
    ends_turn: Bool[Tensor, "V"] | None = None
    """Whether each of the student's ids ends a turn of a conversation; None: none does."""

    def __len__(self) -> int:
        return self.tokens

    def rows(self, first: int, last: int) -> "SpanTarget":
        """What is said of tokens ``first`` to ``last``, in which spans lie whole or not at all.

        No number is read from a GPU, so there are as many spans as before. Those of other tokens become empty, and are
        not used.
        """
        inside = (self.spans[:, 0] >= first) & (self.spans[:, 0] < last)
        of_group = torch.zeros_like(self.group).index_add_(0, self.group, inside.to(self.group.dtype))
        return replace(
            self,
            spans=self.spans.clamp(first, max(first, last - 1)) - first,
            used=self.used & (of_group > 0),
            tokens=last - first,
            pairs=None if self.pairs is None else self.pairs.rows(first, last),
        )


TeacherTarget = LogitsTarget | HiddenTarget | SparseTarget | MixedTarget | SpanTarget


def rows_of(target: TeacherTarget, first: int, last: int) -> TeacherTarget:
    """Rows ``first`` to ``last`` of a target; those of whole distributions and of sparse targets are views."""
    if isinstance(target, MixedTarget):
        return replace(target, targets=tuple(rows_of(one, first, last) for one in target.targets))
    if isinstance(target, HiddenTarget):
        return HiddenTarget(target.hidden[first:last], target.head)
    return LogitsTarget(target.logits[first:last]) if isinstance(target, LogitsTarget) else target.rows(first, last)


@dataclass(frozen=True)
class TokenGroup:
    """Tokens that follow one another and have the same teachers.

    ``target`` is None where no teacher teaches them. Then only cross-entropy is learned from them.
    """

    tokens: int
    target: TeacherTarget | None
    teachers: tuple[str, ...] = ()
    """The name of each teacher, in the order of an ensemble's members. Its numbers are logged under it."""


@dataclass(frozen=True)
class GroupedTarget:
    """The targets of tokens that do not all have the same teachers: of one group of tokens after the other."""

    groups: tuple[TokenGroup, ...]

    def __len__(self) -> int:
        return sum(group.tokens for group in self.groups)


def leaves(target: TeacherTarget | None) -> Iterator[LogitsTarget | HiddenTarget | SparseTarget | SpanTarget]:
    """The single teachers of a target, also those of nested ensembles; nothing for None."""
    if isinstance(target, MixedTarget):
        for member in target.targets:
            yield from leaves(member)
    elif target is not None:
        yield target


def taught(group: TokenGroup) -> TeacherTarget:
    """The target of a group of tokens.

    Raises:
        UserError: no teacher teaches them.
    """
    if group.target is None:
        raise UserError(f"{group.tokens} tokens have no teacher; give their samples one")
    return group.target


def first_rows(target: TeacherTarget | GroupedTarget, count: int) -> TeacherTarget | GroupedTarget:
    """The targets of the first ``count`` tokens, as views."""
    if not isinstance(target, GroupedTarget):
        return rows_of(target, 0, count)
    groups, left = list[TokenGroup](), count
    for group in target.groups:
        tokens = min(left, group.tokens)
        own = None if group.target is None else rows_of(group.target, 0, tokens)
        groups.append(replace(group, tokens=tokens, target=own))
        left -= tokens
    return GroupedTarget(tuple(groups))
