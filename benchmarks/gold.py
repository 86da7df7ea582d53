"""TRL's GOLD loss (`trl.experimental.gold`), called as its trainer calls it, and what its documentation says of it.

Tokens of student and teacher are grouped so that the groups of both hold the same bytes. The distributions of a group
are merged into one, and the sorted probabilities are compared, as ULD does. Its documentation defines two merges, which
are written out in float64 here: `observed`, the default, and `bayesian`.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

OBSERVED, BAYESIAN = "observed", "bayesian"
IGNORED = -100


@dataclass(frozen=True)
class Side:
    """One model's part of a batch. Each row is a special token, the tokens of a text, and a special token."""

    input_ids: Int[Tensor, "B T"]
    attention_mask: Int[Tensor, "B T"]
    ends: Int[Tensor, "B T 2"]
    """The first byte of each token in its text, and the byte after its last; both the text's length at the end."""
    sizes: list[int]
    """The tokens of each text."""

    @property
    def labels(self) -> Int[Tensor, "B T"]:
        """The tokens to learn: those of the text, and the one at its end."""
        labels = self.input_ids.masked_fill(self.attention_mask == 0, IGNORED)
        labels[:, 0] = IGNORED
        return labels


@cache
def _uld() -> Any:
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    try:
        from trl.experimental.gold.gold_config import GOLDConfig
        from trl.experimental.gold.gold_trainer import ULDLoss
    except ImportError:
        return None
    return GOLDConfig, ULDLoss


def is_here() -> bool:
    """Whether the peer is installed."""
    return _uld() is not None


@cache
def _loss(strategy: str, cross_entropy: float) -> Any:
    config, uld = _uld()
    with tempfile.TemporaryDirectory() as folder:
        given = config(
            output_dir=folder,
            use_uld_loss=True,
            uld_token_merge_strategy=strategy,
            uld_crossentropy_weight=cross_entropy,
            report_to=[],
            bf16=False,
        )
    return uld(given)


def gold(
    strategy: str,
    cross_entropy: float,
    student: Float[Tensor, "B T V"],
    teacher: Float[Tensor, "B U W"],
    ours: Side,
    theirs: Side,
) -> Tensor:
    """The loss of GOLDTrainer, from whole logits."""
    loss: Tensor = _loss(strategy, cross_entropy)(
        student_logits=student,
        teacher_logits=teacher,
        student_labels=ours.labels,
        teacher_labels=theirs.labels,
        student_input_ids=ours.input_ids,
        teacher_input_ids=theirs.input_ids,
        student_byte_offsets=ours.ends,
        teacher_byte_offsets=theirs.ends,
    )
    return loss


def documented(
    strategy: str, student: Float[Tensor, "B T V"], teacher: Float[Tensor, "B U W"], ours: Side, theirs: Side
) -> Tensor:
    """What GOLD's documentation says: the L1 distance of the sorted merged probabilities, meaned over the groups of a
    text and over texts.

    A token's distribution is the one that predicts it, at the place before. `observed` multiplies the distribution of a
    group's first token by the probabilities of the tokens after it; `bayesian` that of its last token by the
    probabilities of the tokens before it.
    """
    total = student.new_zeros(())
    for row, sizes in enumerate(zip(ours.sizes, theirs.sizes, strict=True)):
        merged = []
        ends = [side.ends[row, 1 : 1 + size, 1].tolist() for side, size in zip((ours, theirs), sizes, strict=True)]
        for logits, side, groups in zip((student, teacher), (ours, theirs), groups_of(*ends), strict=True):
            log_p = logits[row].log_softmax(-1)
            merged.append(torch.stack([_merged(strategy, log_p, side.input_ids[row], group) for group in groups]))
        p, q = (each.sort(-1, descending=True).values for each in merged)
        total = total + (torch.nn.functional.pad(p, (0, q.shape[1] - p.shape[1])) - q).abs().sum(-1).mean()
    return total / len(ours.sizes)


def groups_of(ours: Sequence[int], theirs: Sequence[int]) -> tuple[list[list[int]], list[list[int]]]:
    """The groups of two tokenizations of a text: the places of their tokens between two bytes at which both end one.

    Args:
        ours: where each token of one tokenization ends; place 1 is the first one's.
        theirs: the same of the other.
    """
    common = sorted({*ours} & {*theirs})
    groups: tuple[list[list[int]], list[list[int]]] = [], []
    for into, ends in zip(groups, (ours, theirs), strict=True):
        first = 0
        for byte in common:
            last = ends.index(byte) + 1
            into.append([place + 1 for place in range(first, last)])
            first = last
    return groups


def _merged(
    strategy: str, log_p: Float[Tensor, "T V"], ids: Int[Tensor, "T"], group: Sequence[int]
) -> Float[Tensor, "V"]:
    whole, others = (group[0], group[1:]) if strategy == OBSERVED else (group[-1], group[:-1])
    return (log_p[whole - 1] + sum(log_p[place - 1, ids[place]] for place in others)).exp()


def reads_the_same(ours: Sequence[int], theirs: Sequence[int], strategy: str) -> float:
    """The share of the groups whose distributions were made after the same text.

    The default takes the logits at a group's first token, which has been read there.
    """
    same = 0
    both = groups_of(ours, theirs)
    for one, other in zip(*both, strict=True):
        pair = (ours, one), (theirs, other)
        # The text that a place has read ends where its token ends, and the place before has not read it.
        read = [(0, *ends)[group[0] if strategy == OBSERVED else group[-1] - 1] for ends, group in pair]
        same += read[0] == read[1]
    return same / len(both[0])
