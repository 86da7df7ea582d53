"""The default codec: the teacher's k likeliest tokens and the exact mass of all other tokens."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import pad

from potstill.errors import UserError
from potstill.losses.teacher_target import SparseTarget, TeacherTarget
from potstill.models.head import Head
from potstill.targets.codecs.bits import list_bytes, pack_ids, unpack_ids
from potstill.targets.codecs.checks import check_kept, check_temperatures, check_vocabulary, expect_temperature
from potstill.targets.codecs.layout import Layout, dequantise, from_bytes, quantise, to_bytes
from potstill.targets.codecs.logit_rows import check_finite, logit_rows, stack


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
        records = [self.encode_rows(logits)[0] for _, logits in logit_rows(target, self.vocabulary)]
        return stack(records, self.layout.record_bytes)

    def encode_rows(self, logits: Float[Tensor, "N V"]) -> tuple[UInt8[Tensor, "N record_bytes"], Float[Tensor, "N V"]]:
        """The records, and the logits with ``-inf`` in place of the kept ones."""
        kept, ids = top_k(logits, self.k)
        rest = logits.scatter(-1, ids, -torch.inf)
        tails = torch.stack([log_tail(kept, rest, temperature) for temperature in self.temperatures], -1)
        low, high = pack_ids(ids, self.vocabulary)
        values = quantise(kept - kept.amax(-1, keepdim=True), self.bits)
        return self.layout.join(low=low, high=high, values=values, tails=to_bytes(tails.float())), rest

    def _encode_sparse(self, target: SparseTarget) -> UInt8[Tensor, "N record_bytes"]:
        """Encode a served teacher's targets: some log-probabilities at one temperature, and the mass of the rest."""
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
    """The k greatest logits of each row and their ids, by ascending id."""
    ids = logits.topk(k, sorted=False).indices.sort(-1).values
    return logits.gather(-1, ids), ids


def log_tail(kept: Float[Tensor, "N K"], rest: Float[Tensor, "N V"], temperature: float) -> Float[Tensor, "N"]:
    """The log of the softmax mass at ``temperature`` of ``rest``, which is ``-inf`` at the kept tokens.

    The rest is summed itself, and the ratio of both masses gives the result. A difference of logs would round a small
    tail, or a small kept mass, to 0.
    """
    inside, outside = (kept / temperature).logsumexp(-1), (rest / temperature).logsumexp(-1)
    check_finite(inside)
    return torch.nn.functional.logsigmoid(outside - inside)


def log_rest(log_mass: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """``log(1 - exp(log_mass))``, without cancellation near 0 or 1."""
    return torch.where(log_mass > -0.7, torch.log(-torch.expm1(log_mass)), torch.log1p(-torch.exp(log_mass)))
