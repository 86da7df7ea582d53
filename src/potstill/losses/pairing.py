"""Pairing: which loss is taken against which teacher. It is checked once, before any work."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from potstill.errors import UserError
from potstill.losses.loss import Loss
from potstill.losses.teacher_target import (
    HiddenTarget,
    LogitsTarget,
    MixedTarget,
    SpanTarget,
    SparseTarget,
    TeacherTarget,
    leaves,
)


@dataclass(frozen=True)
class Part:
    """One target, the ``positions`` of the losses that are taken against it, and its share of their sum.

    ``target`` is sparse, of spans, or of dense teachers only. In an ensemble that is summed part by part, ``member`` is
    the number of the ensemble's member that the part belongs to, and ``share_of_member`` is its share of that member.
    """

    target: TeacherTarget | None
    positions: tuple[int, ...]
    share: float = 1.0
    member: int | None = None
    share_of_member: float = 1.0

    def share_of(self, loss: Loss) -> float:
        """The share of this part in the value of ``loss``. Cross-entropy is in one part only, with share 1."""
        return self.share if loss.needs_teacher else 1.0

    @property
    def is_dense(self) -> bool:
        """Whether the target holds whole distributions."""
        return self.target is not None and not isinstance(self.target, SparseTarget)


@dataclass(frozen=True)
class Pairing:
    """The losses, the parts of their sum, and the names of the numbers that are logged."""

    losses: tuple[Loss, ...]
    parts: tuple[Part, ...]
    names: tuple[str, ...]
    teachers: tuple[str, ...] = ()
    """The name of each teacher, if the teachers have names."""

    @staticmethod
    def of(losses: Sequence[Loss], target: TeacherTarget | None, teachers: tuple[str, ...] = ()) -> "Pairing":
        """The pairing of ``losses`` and ``target``.

        Args:
            losses: the losses.
            target: the target, or None where all losses are cross-entropy.
            teachers: the name of each teacher. Default: ``teacher0``, ``teacher1``, ... in an ensemble.

        Raises:
            UserError: there is no loss, no target for a divergence, or a divergence cannot be taken against the target.
        """
        if not losses:
            raise UserError("losses is empty: name at least one")
        divergences = [loss for loss in losses if loss.needs_teacher]
        if divergences and target is None:
            raise UserError(f"{divergences[0].kind} needs a teacher's targets, and there are none")
        if target is None or not divergences:
            parts = [Part(None, tuple(range(len(losses))))]
        else:
            for loss in divergences:
                _check(loss, target)
            parts = _parts(losses, target)
        names = [_name(losses, i) for i in range(len(losses))]
        if divergences and isinstance(target, MixedTarget):
            members = teachers or tuple(f"teacher{m}" for m in range(len(target.targets)))
            names += [f"{names[i]}/{member}" for member in members for i in _divergences(losses)]
        return Pairing(tuple(losses), tuple(parts), tuple(names), teachers)

    @property
    def needs_teacher(self) -> bool:
        """Whether any loss compares the student with a teacher."""
        return any(loss.needs_teacher for loss in self.losses)

    @property
    def weights(self) -> list[float]:
        """The factor of each named number in the loss; 0 for a number that is only logged."""
        return [loss.weight for loss in self.losses] + [0.0] * (len(self.names) - len(self.losses))

    def weights_beside(self, values: Float[Tensor, "names"]) -> Float[Tensor, "names"]:
        """``weights``, filled in on the device of ``values``: a copy to a GPU would wait for all work before it."""
        return torch.stack([values.new_full((), weight) for weight in self.weights])

    def of_member(self, member: int, position: int) -> int:
        """The place in ``names`` of one divergence against one member of an ensemble."""
        order = _divergences(self.losses)
        return len(self.losses) + member * len(order) + order.index(position)

    def named(self, values: Float[Tensor, "names"]) -> dict[str, Float[Tensor, ""]]:
        """The numbers, by the names under which they are logged."""
        found = dict(zip(self.names, values.unbind(), strict=True))
        if len(self.teachers) == 1:
            names = [self.names[i] for i in _divergences(self.losses)]
            found |= {f"{name}/{self.teachers[0]}": found[name] for name in names}
        return found


def _divergences(losses: Sequence[Loss]) -> list[int]:
    return [i for i, loss in enumerate(losses) if loss.needs_teacher]


def _name(losses: Sequence[Loss], position: int) -> str:
    kind = losses[position].kind
    earlier = sum(loss.kind == kind for loss in losses[:position])
    return f"{kind}_{earlier + 1}" if earlier else kind


def _parts(losses: Sequence[Loss], target: TeacherTarget) -> list[Part]:
    everything = tuple(range(len(losses)))
    if not isinstance(target, MixedTarget) or not _is_summed(target):
        return [Part(target, everything)]
    # KL(Σ w q ‖ p) and Σ w KL(q ‖ p) differ by a number that does not depend on the student: the gradient is the same.
    # Of teachers of other tokenizers, the losses are averaged: each has spans of its own.
    parts: list[Part] = []
    for member, (of_member, weight) in enumerate(zip(target.targets, target.weights, strict=True)):
        for leaf, share in _weighted_leaves(of_member):
            positions = everything if not parts else tuple(_divergences(losses))
            parts.append(Part(leaf, positions, weight * share, member, share))
    return parts


def _has(target: TeacherTarget, kind: type[SparseTarget] | type[SpanTarget]) -> bool:
    return any(isinstance(leaf, kind) for leaf in leaves(target))


def _is_summed(target: TeacherTarget) -> bool:
    """Whether the losses against an ensemble are the sums of those against its members."""
    return _has(target, SparseTarget) or _has(target, SpanTarget)


def _weighted_leaves(target: TeacherTarget, weight: float = 1.0) -> Iterator[tuple[TeacherTarget, float]]:
    if isinstance(target, MixedTarget) and _is_summed(target):
        for member, share in zip(target.targets, target.weights, strict=True):
            yield from _weighted_leaves(member, weight * share)
    else:
        yield target, weight


def _check(loss: Loss, target: TeacherTarget) -> None:
    if isinstance(target, MixedTarget):
        if target.mix == "logits" and _has(target, SpanTarget):
            raise UserError("teachers of other tokenizers have no logits in common: mix them as probabilities")
        if _has(target, SparseTarget) and target.mix == "logits":
            raise UserError("an ensemble with sparse targets cannot be mixed as logits: mix it as probabilities")
        if _has(target, SparseTarget) and loss.kind != "forward_kl":
            raise UserError(f"{loss.kind} of an ensemble needs whole distributions: with sparse targets use forward_kl")
        for member in target.targets:
            _check(loss, member)
        return
    if loss.crosses_tokenizers != isinstance(target, SpanTarget):
        if loss.crosses_tokenizers:
            raise UserError(f"{loss.kind} compares models of different tokenizers, and these have one: use forward_kl")
        raise UserError(f"{loss.kind} needs a teacher of the student's own tokenizer, and this has another: use alm")
    if isinstance(target, SparseTarget):
        if target.sampled and loss.kind != "forward_kl":
            raise UserError(
                f"{loss.kind} cannot be taken against sampled targets, which are right on average only: "
                "use forward_kl, or capture top_k"
            )
        if target.temperature != loss.temperature:
            raise UserError(
                f"{loss.kind} has temperature {loss.temperature:g}, but its targets were captured at "
                f"{target.temperature:g}: make them equal"
            )


def check_shapes(target: TeacherTarget, tokens: int, student: int, vocabulary: int | None) -> None:
    """Check that a target has a row for each token, and logits for the student's, or the shared, vocabulary.

    Raises:
        UserError: the two numbers differ; it names both.
    """
    for leaf in leaves(target):
        if len(leaf) != tokens:
            raise UserError(f"the target has {len(leaf)} rows, but there are {tokens} supervised tokens")
        if isinstance(leaf, SparseTarget | SpanTarget):
            continue
        width = leaf.logits.shape[1] if isinstance(leaf, LogitsTarget) else len(leaf.head.weight)
        assert isinstance(leaf, LogitsTarget | HiddenTarget)
        if vocabulary is None and width != student:
            raise UserError(
                f"the teacher has {width} logits and the student {student}: say how many ids they share (vocabulary), "
                "or use alm, if they have different tokenizers"
            )
        if vocabulary is not None and width < vocabulary:
            raise UserError(f"the teacher has {width} logits, fewer than the {vocabulary} ids to compare")
