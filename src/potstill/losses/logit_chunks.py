"""Logits in chunks: matrix products of a student or a teacher, before bias, scale and soft cap."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from potstill.losses.cpu_buffers import give_back, take
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, SparseTarget, TeacherTarget, leaves
from potstill.models.head import Head, finish_logits, statistics_dtype


@dataclass(frozen=True)
class Logits:
    """A matrix product, with the bias, scale and soft cap of ``finish_logits`` that make logits of it.

    They are separate because the product stays in its own dtype. The rest is done in fp32 on a few rows at a time.
    """

    product: Float[Tensor, "N V"]
    bias: Float[Tensor, "V"] | None = None
    scale: float = 1.0
    softcap: float | None = None

    def __len__(self) -> int:
        return len(self.product)

    def rows(self, first: int, last: int) -> "Logits":
        """Rows ``first`` to ``last``, as a view."""
        return replace(self, product=self.product[first:last])

    def finished(self) -> Float[Tensor, "N V"]:
        """The logits in fp32, or in fp64 where the product is fp64. Do not write to them: they may be the product."""
        return finish_logits(self.product, self.bias, self.scale, self.softcap)

    def at(self, ids: Int[Tensor, "N K"]) -> Float[Tensor, "N K"]:
        """The finished logits of these ids only."""
        bias = None if self.bias is None else self.bias[ids]
        return finish_logits(self.product.gather(1, ids), bias, self.scale, self.softcap)

    def put_at_labels(self, labels: Int[Tensor, "N"], gradient: Float[Tensor, "N 1"]) -> None:
        """Overwrite one number of each row of the product, which holds its gradient, at the row's label."""
        rows = torch.arange(len(labels), device=labels.device)
        self.product.index_put_((rows, labels), gradient[:, 0].to(self.product.dtype))

    def back(self, gradient: Float[Tensor, "N K"], finished: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
        """The gradient for the product, from the gradient for the finished logits."""
        if self.softcap is not None:
            gradient = gradient * (1 - (finished / self.softcap) ** 2)
        return gradient * self.scale if self.scale != 1 else gradient


def product_dtype(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """The dtype of ``hidden @ weight.T``: autocast's where it is on. Autocast never touches fp64."""
    dtype = torch.promote_types(hidden.dtype, weight.dtype)
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return dtype


class CastWeights:
    """Heads' weights in the dtype of their products, kept for the micro-batches of one optimizer step.

    Under autocast a weight in fp32 is cast for its products. All micro-batches of a step have the same weights. The
    owner calls ``clear`` at the end of a step.
    """

    def __init__(self) -> None:
        # With the weight itself, so that no other weight can come to lie at its place in memory.
        self._kept: dict[Any, tuple[int, Tensor, Tensor]] = {}

    def of(self, weight: Float[Tensor, "V H"], dtype: torch.dtype) -> Float[Tensor, "V H"]:
        """``weight.to(dtype)``. A weight that was changed in place is cast anew."""
        if weight.dtype == dtype:
            return weight
        place = weight.data_ptr(), weight.shape, weight.stride(), weight.dtype, dtype
        kept = self._kept.get(place)
        if kept is None or kept[0] != weight._version:
            kept = self._kept[place] = weight._version, weight.detach(), weight.detach().to(dtype)
        return kept[2]

    def clear(self) -> None:
        """Free the memory."""
        self._kept.clear()


class ProductInChunks:
    """``hidden @ weight[:vocabulary].T`` for a few rows at a time, always in the same memory."""

    def __init__(
        self,
        hidden: Float[Tensor, "N H"],
        head: Head,
        vocabulary: int,
        dtype: torch.dtype,
        casts: CastWeights | None = None,
    ) -> None:
        self.hidden = hidden.to(dtype)
        weight = head.weight[:vocabulary]
        self._cast: Tensor | None = None
        if casts is not None:
            weight = casts.of(weight, dtype)
        elif weight.dtype != dtype:
            weight = self._cast = take(weight.shape, dtype, weight.device).copy_(weight)
        self.weight = weight
        self.bias = None if head.bias is None else head.bias[:vocabulary].to(statistics_dtype(dtype))
        self.scale, self.softcap = head.scale, head.softcap
        self.bytes_per_row = vocabulary * dtype.itemsize
        self._memory: Tensor | None = None

    def logits(self, first: int, last: int, most: int) -> Logits:
        """Rows ``first`` to ``last``, in memory for ``most`` rows that the next call overwrites."""
        if self._memory is None:
            self._memory = take((most, len(self.weight)), self.hidden.dtype, self.hidden.device)
        product = torch.mm(self.hidden[first:last], self.weight.t(), out=self._memory[: last - first])
        return Logits(product, self.bias, self.scale, self.softcap)

    def close(self) -> None:
        """Give the memory back, after the last use of any logits, for the next batch."""
        if self._memory is not None:
            give_back(self._memory)
            self._memory = None

    def release(self) -> None:
        """Give all memory back, also that of the head's cast. The source cannot be used any more."""
        self.close()
        if self._cast is not None:
            give_back(self._cast)
            del self.weight, self._cast


class GivenLogits:
    """Logits that are in memory already, with the same interface as ``ProductInChunks``."""

    bytes_per_row = 0

    def __init__(self, logits: Float[Tensor, "N V"], vocabulary: int) -> None:
        self.whole = logits[:, :vocabulary]

    def logits(self, first: int, last: int, most: int) -> Logits:
        """Rows ``first`` to ``last``, as a view."""
        return Logits(self.whole[first:last])

    def close(self) -> None:
        """Nothing: the memory belongs to the caller."""


class RowsFrom:
    """The rows of another source from number ``first`` on, with the same interface."""

    def __init__(self, source: "LogitsSource", first: int) -> None:
        self._source, self._first = source, first
        self.bytes_per_row: int = source.bytes_per_row

    def logits(self, first: int, last: int, most: int) -> Logits:
        """Rows ``first`` to ``last``, counted from the first of them."""
        return self._source.logits(self._first + first, self._first + last, most)

    def close(self) -> None:
        """Give the memory back. The source takes it again when it is next asked for rows."""
        self._source.close()


LogitsSource = ProductInChunks | GivenLogits | RowsFrom


def teacher_products(
    target: TeacherTarget | None, vocabulary: int, casts: CastWeights | None = None
) -> list[LogitsSource]:
    """One source of logits for each dense teacher in ``target``, in the order of ``leaves``."""
    sources: list[LogitsSource] = []
    for leaf in leaves(target):
        if isinstance(leaf, HiddenTarget):
            dtype = product_dtype(leaf.hidden, leaf.head.weight)
            sources.append(ProductInChunks(leaf.hidden.detach(), detached(leaf.head), vocabulary, dtype, casts))
        elif isinstance(leaf, LogitsTarget):
            sources.append(GivenLogits(leaf.logits.detach(), vocabulary))
        else:
            assert isinstance(leaf, SparseTarget)
    return sources


def detached(head: Head) -> Head:
    """The same head, whose tensors need no gradient."""
    return replace(head, weight=head.weight.detach(), bias=None if head.bias is None else head.bias.detach())


def chunks(
    tokens: int, memory_budget: int, sources: Sequence[LogitsSource], buffers: int = 8
) -> Iterator[tuple[int, int, int]]:
    """First row, last row and the size of the largest chunk, for chunks as large as the budget allows.

    All chunks have nearly the same size: a last chunk of a few rows would be a slow matrix product.

    Args:
        tokens: the number of rows.
        memory_budget: bytes for the logits of one chunk, and for the buffers between the passes over a few rows.
        sources: of the logits.
        buffers: one part in so many of the budget is for these buffers.
    """
    bytes_per_row = max(1, sum(source.bytes_per_row for source in sources))
    most = max(1, min(tokens, memory_budget * (buffers - 1) // buffers // bytes_per_row))
    count = -(-tokens // most)
    most = -(-tokens // count)
    for first in range(0, tokens, most):
        yield first, min(first + most, tokens), most
