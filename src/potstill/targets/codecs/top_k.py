"""The default codec: the teacher's k likeliest tokens and the exact mass of all other tokens."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import pad

from potstill.errors import UserError
from potstill.losses.cpu_buffers import give_back, take
from potstill.losses.teacher_target import SparseTarget, TeacherTarget
from potstill.models.head import Head
from potstill.targets.codecs.bits import list_bytes, pack_ids, unpack_ids
from potstill.targets.codecs.checks import check_kept, check_temperatures, check_vocabulary, expect_temperature
from potstill.targets.codecs.layout import Layout, dequantise, from_bytes, quantise, to_bytes
from potstill.targets.codecs.logit_rows import check_finite, logit_rows

BLOCK = 32
"""The number of logits of which first only the greatest is compared. For 64 of 32,000 to 150,000 logits, it is near the
square root of their ratio, which reads the fewest numbers twice."""


class Kept(NamedTuple):
    """The k greatest logits of each row, their ids, and the log of the summed exponentials of all other logits."""

    logits: Float[Tensor, "N K"]
    ids: Int[Tensor, "N K"]
    others: Float[Tensor, "N temperatures"]
    """At each of the codec's temperatures."""


@dataclass(frozen=True)
class TopKCodec:
    """Top-k with exact tail.

    A record keeps the *shape* of the k log-probabilities, quantised. For each temperature it keeps the log of the mass
    of all other tokens, in full precision. Decoding scales the shape to the mass that the tail leaves. So
    ``exp(log_probs).sum(-1) + exp(log_tail) == 1`` holds at every temperature, for any error of the quantiser.
    """

    vocabulary: int
    k: int = 64
    bits: int = 8
    temperatures: tuple[float, ...] = (1.0,)
    mode: ClassVar[str] = "top_k"

    def __post_init__(self) -> None:
        check_vocabulary(self.vocabulary)
        check_kept(self.vocabulary, self.k, self.bits)
        check_temperatures(self.temperatures)

    @cached_property
    def layout(self) -> Layout:
        """The fields of a record."""
        low, high = list_bytes(self.vocabulary, self.k)
        return Layout(
            {"low": low, "high": high, "values": self.k * self.bits // 8, "tails": 4 * len(self.temperatures)}
        )

    def encode(self, target: TeacherTarget, uniforms: Float[Tensor, "N"]) -> UInt8[Tensor, "N record_bytes"]:
        """Encode N tokens as records, on the target's device; only the sampling codecs use ``uniforms``.

        Raises:
            UserError: the target does not fit the codec.
        """
        if isinstance(target, SparseTarget):
            return self._encode_sparse(target)
        kept = [self.take(logits) for _, logits in logit_rows(target, self.vocabulary)]
        if not kept:
            return torch.empty(0, self.layout.record_bytes, dtype=torch.uint8)
        return self.records(Kept(*map(torch.cat, zip(*kept, strict=True))))

    def take(self, logits: Float[Tensor, "N V"]) -> Kept:
        """What is kept of these rows. Overwrites the kept logits with ``-inf``."""
        kept, ids = top_k(logits, self.k)
        rest = logits.scatter_(-1, ids, -torch.inf)
        others = torch.stack([log_sum_exp(rest, temperature) for temperature in self.temperatures], -1)
        return Kept(kept, ids, others)

    def records(self, kept: Kept) -> UInt8[Tensor, "N record_bytes"]:
        """The records of N tokens.

        Raises:
            UserError: a logit was not a number.
        """
        tails = torch.stack(
            [
                log_tail(kept.logits, others, temperature)
                for others, temperature in zip(kept.others.unbind(-1), self.temperatures, strict=True)
            ],
            -1,
        )
        low, high = pack_ids(kept.ids, self.vocabulary)
        values = quantise(kept.logits - kept.logits.amax(-1, keepdim=True), self.bits)
        return self.layout.join(low=low, high=high, values=values, tails=to_bytes(tails))

    def _encode_sparse(self, target: SparseTarget) -> UInt8[Tensor, "N record_bytes"]:
        """Encode a served teacher's targets: some log-probabilities at one temperature, and the mass of the rest.

        A target without entries, of which nothing is known, has all of its mass in the tail.
        """
        if target.sampled:
            raise UserError(
                "capture.keep: top_k needs the teacher's likeliest tokens, and the teacher gave random ones."
            )
        for temperature in self.temperatures:
            expect_temperature([target.temperature], temperature)
        missing = max(0, self.k - target.ids.shape[1])
        log_probs = pad(target.log_probs, (0, missing), value=-torch.inf)
        all_ids = pad(target.ids, (0, missing))
        places = log_probs.topk(self.k, sorted=False).indices
        ids, order = all_ids.gather(-1, places).sort(-1)
        kept = log_probs.gather(-1, places.gather(-1, order))
        unknown = ((kept == -torch.inf).all(-1) & (target.log_tail == 0))[:, None]
        kept = kept.masked_fill(unknown, 0.0)
        check_finite(kept.amax(-1))
        others = log_probs.scatter(-1, places, -torch.inf).logsumexp(-1)
        low, high = pack_ids(ids, self.vocabulary)
        shape = (kept - kept.amax(-1, keepdim=True)) * target.temperature
        tails = to_bytes(torch.logaddexp(others, target.log_tail).float()[:, None])
        return self.layout.join(low=low, high=high, values=quantise(shape, self.bits), tails=tails)

    def decode(
        self, packed: UInt8[Tensor, "N record_bytes"], temperature: float = 1.0, head: Head | None = None
    ) -> SparseTarget:
        """Decode N records at one of the store's temperatures, on the device of ``packed``, in float32.

        Raises:
            UserError: the store was not captured at this temperature.
        """
        expect_temperature(self.temperatures, temperature)
        fields = self.layout.split(packed)
        ids = unpack_ids(fields["low"], fields["high"], self.vocabulary, self.k)
        tail = from_bytes(fields["tails"], torch.float32)[:, self.temperatures.index(temperature)]
        shape = dequantise(fields["values"], self.bits) / temperature
        return SparseTarget(ids, torch.log_softmax(shape, -1) + log_rest(tail)[:, None], tail, temperature)


def top_k(logits: Float[Tensor, "N V"], k: int) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
    """The k greatest logits of each row, in float32, and their ids, by ascending id; of equal logits, the lower ids.

    A row's k greatest logits lie in the k blocks with the greatest maxima. Only these are searched.
    """
    blocks = logits.shape[1] // BLOCK
    if blocks <= k:
        ids = _greatest(logits, k)
        return logits.gather(-1, ids), ids
    whole, after = logits.split([blocks * BLOCK, logits.shape[1] % BLOCK], -1)
    whole = whole.unflatten(-1, (blocks, BLOCK))
    best = _greatest(whole.amax(-1), k)
    rows = torch.arange(len(logits), device=logits.device)[:, None]
    searched = torch.cat([whole[rows, best].flatten(1), after], -1)
    places = _greatest(searched, k)
    # The logits after the last whole block are the block of that number.
    ids = pad(best, (0, 1), value=blocks).gather(-1, places // BLOCK) * BLOCK + places % BLOCK
    return searched.gather(-1, places), ids


def _greatest(numbers: Float[Tensor, "N C"], k: int) -> Int[Tensor, "N K"]:
    """The ascending places of the k greatest numbers of each row; of equal numbers, the first ones.

    ``torch.topk`` takes any of equal numbers, and another one on another device. So it gets integers that all differ:
    the number's bits, in an order that integers have too, and below them the place.
    """
    bits = numbers.contiguous().view(torch.int32)
    distinct = (bits >> 31).bitwise_and_(0x7FFFFFFF).bitwise_xor_(bits).long().bitwise_left_shift_(20)
    distinct -= torch.arange(numbers.shape[1], device=numbers.device)
    return distinct.topk(k, sorted=False).indices.sort(-1).values


def log_sum_exp(rest: Float[Tensor, "N V"], temperature: float) -> Float[Tensor, "N"]:
    """``(rest / temperature).logsumexp(-1)``, with memory that stays in the cache of a CPU."""
    memory = take(rest.shape, rest.dtype, rest.device)
    scaled = rest if temperature == 1 else torch.div(rest, temperature, out=memory)
    greatest = scaled.amax(-1, keepdim=True)
    greatest = greatest.masked_fill(greatest == -torch.inf, 0.0)
    found = torch.sub(scaled, greatest, out=memory).exp_().sum(-1).log_() + greatest[:, 0]
    give_back(memory)
    return found


def log_tail(kept: Float[Tensor, "N K"], others: Float[Tensor, "N"], temperature: float) -> Float[Tensor, "N"]:
    """The log of the softmax mass at ``temperature`` of all tokens but the kept ones.

    The other tokens are summed themselves, and the ratio of both masses gives the result. A difference of logs would
    round a small tail, or a small kept mass, to 0.

    Args:
        kept: the kept logits.
        others: ``log_sum_exp`` of the other logits at this temperature.
        temperature: the temperature.

    Raises:
        UserError: a logit is not a number.
    """
    inside = (kept / temperature).logsumexp(-1)
    check_finite(torch.logaddexp(inside, others))
    return torch.nn.functional.logsigmoid(others - inside)


def log_rest(log_mass: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """``log(1 - exp(log_mass))``, without cancellation near 0 or 1."""
    return torch.where(log_mass > -0.7, torch.log(-torch.expm1(log_mass)), torch.log1p(-torch.exp(log_mass)))
