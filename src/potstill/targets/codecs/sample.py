"""Codecs that sample the teacher's distribution without bias, so that errors average out over tokens."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from potstill.losses.teacher_target import SparseTarget, TeacherTarget
from potstill.models.head import Head
from potstill.targets.codecs.bits import list_bytes, pack_ids, unpack_ids
from potstill.targets.codecs.checks import check_draws, check_temperatures, check_vocabulary, expect_temperature
from potstill.targets.codecs.layout import Layout
from potstill.targets.codecs.logit_rows import check_finite, logit_rows, stack
from potstill.targets.codecs.top_k import TopKCodec


@dataclass(frozen=True)
class SampledCodec:
    """Random sampling of the teacher's distribution: the smallest codec, and unbiased.

    A record holds the drawn ids; an id drawn n times has the weight n / draws. The method is that of Anshumann et al.
    (2025), "Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs". They draw independently; the
    systematic draws here have the same mean and less variance.
    """

    vocabulary: int
    draws: int = 30
    temperature: float = 1.0
    mode: ClassVar[str] = "sample"

    def __post_init__(self) -> None:
        check_vocabulary(self.vocabulary)
        check_draws(self.draws)
        check_temperatures([self.temperature])

    @cached_property
    def layout(self) -> Layout:
        """The fields of a record."""
        low, high = list_bytes(self.vocabulary, self.draws)
        return Layout({"draws_low": low, "draws_high": high})

    def encode(self, target: TeacherTarget, uniforms: Float[Tensor, "N"]) -> UInt8[Tensor, "N record_bytes"]:
        """Encode N tokens as records, on the target's device, with one random number in (0, 1) per token."""
        rows = logit_rows(target, self.vocabulary)
        return stack([self.encode_rows(logits, uniforms[part]) for part, logits in rows], self.layout.record_bytes)

    def encode_rows(
        self, logits: Float[Tensor, "N V"], uniforms: Float[Tensor, "N"]
    ) -> UInt8[Tensor, "N record_bytes"]:
        """Encode draws from softmax(logits / temperature) as records."""
        ids = draw(logits / self.temperature, uniforms, self.draws)
        low, high = pack_ids(ids, self.vocabulary)
        return self.layout.join(draws_low=low, draws_high=high)

    def decode(
        self, packed: UInt8[Tensor, "N record_bytes"], temperature: float = 1.0, head: Head | None = None
    ) -> SparseTarget:
        """Decode N records, on the device of ``packed``, in float32; the tail is empty.

        Raises:
            UserError: the store was not captured at this temperature.
        """
        expect_temperature([self.temperature], temperature)
        fields = self.layout.split(packed)
        ids = unpack_ids(fields["draws_low"], fields["draws_high"], self.vocabulary, self.draws)
        no_tail = torch.full((len(ids),), -torch.inf, device=ids.device)
        return SparseTarget(ids, log_shares(ids), no_tail, temperature, sampled=True)


@dataclass(frozen=True)
class HybridCodec:
    """The k likeliest tokens as in top_k, and draws from all other tokens in place of a tail; also unbiased.

    A record is a top_k record followed by a sample record.
    """

    vocabulary: int
    k: int = 16
    draws: int = 16
    bits: int = 8
    temperature: float = 1.0
    mode: ClassVar[str] = "hybrid"

    @cached_property
    def _kept(self) -> TopKCodec:
        return TopKCodec(self.vocabulary, self.k, self.bits, (self.temperature,))

    @cached_property
    def _drawn(self) -> SampledCodec:
        return SampledCodec(self.vocabulary, self.draws, self.temperature)

    def __post_init__(self) -> None:
        _ = self._kept, self._drawn  # building them checks the settings

    @cached_property
    def layout(self) -> Layout:
        """The fields of a record."""
        return Layout({**self._kept.layout.sizes, **self._drawn.layout.sizes})

    def encode(self, target: TeacherTarget, uniforms: Float[Tensor, "N"]) -> UInt8[Tensor, "N record_bytes"]:
        """Encode N tokens as records, on the target's device, with one random number in (0, 1) per token."""
        records = []
        for part, logits in logit_rows(target, self.vocabulary):
            kept = self._kept.records(self._kept.take(logits))
            records.append(torch.cat([kept, self._drawn.encode_rows(logits, uniforms[part])], 1))
        return stack(records, self.layout.record_bytes)

    def decode(
        self, packed: UInt8[Tensor, "N record_bytes"], temperature: float = 1.0, head: Head | None = None
    ) -> SparseTarget:
        """Decode N records, on the device of ``packed``, in float32; the drawn tokens share the mass of the tail.

        Raises:
            UserError: the store was not captured at this temperature.
        """
        kept_bytes = self._kept.layout.record_bytes
        kept = self._kept.decode(packed[:, :kept_bytes], temperature)
        drawn = self._drawn.decode(packed[:, kept_bytes:], temperature)
        log_probs = torch.cat([kept.log_probs, drawn.log_probs + kept.log_tail[:, None]], 1)
        ids = torch.cat([kept.ids, drawn.ids], 1)
        return SparseTarget(ids, log_probs, drawn.log_tail, temperature, sampled=True)


def draw(scores: Float[Tensor, "N V"], uniforms: Float[Tensor, "N"], draws: int) -> Int[Tensor, "N draws"]:
    """Ids drawn from softmax(scores), ascending, with one random number per row.

    Systematic sampling (Madow 1949) takes the points ``(u + j) / draws`` on the cumulative distribution. A token of
    probability p is drawn ``draws * p`` times on average, as with independent draws, and always less than one draw away
    from that. If all scores are ``-inf``, the last id is drawn.
    """
    weights = torch.softmax(scores, -1).masked_fill(scores == -torch.inf, 0.0)
    cumulative = weights.double().cumsum(-1)
    check_finite(cumulative[:, -1])
    steps = torch.arange(draws, dtype=torch.float64, device=scores.device)
    points = (uniforms.to(scores.device)[:, None] + steps) / draws * cumulative[:, -1:]
    return torch.searchsorted(cumulative, points, right=True).clamp(max=scores.shape[1] - 1)


def log_shares(ids: Int[Tensor, "N draws"]) -> Float[Tensor, "N draws"]:
    """The log of each id's share of ascending draws, at the id's first place; ``-inf`` at its other places."""
    first = torch.ones_like(ids, dtype=torch.bool)
    first[:, 1:] = ids[:, 1:] != ids[:, :-1]
    run = first.cumsum(-1) - 1
    counts = torch.zeros_like(ids).scatter_add_(1, run, torch.ones_like(ids)).gather(1, run)
    return (counts * first / ids.shape[1]).log()
