"""The gradients for hidden states, head weight and head bias, summed over the chunks of tokens."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from potstill.losses.cpu_buffers import empty_for_caller
from potstill.losses.logit_chunks import ProductInChunks
from potstill.models.head import Head, statistics_dtype

# Elements of the head's gradient that are multiplied in half precision at once, before they are added in fp32.
_SLICE = 2**20


class HeadGradients:
    """Sums the gradients over chunks. A gradient that is not wanted is neither allocated nor computed."""

    def __init__(
        self,
        hidden: Float[Tensor, "N H"],
        head: Head,
        student: ProductInChunks,
        wanted: Sequence[bool],
        in_one_chunk: bool,
    ) -> None:
        self._student = student
        weight, bias = head.weight, head.bias
        self._dtypes = hidden.dtype, weight.dtype, weight.dtype if bias is None else bias.dtype
        # One product is rounded once, whatever its dtype; a sum of several products must stay in fp32.
        dtype = weight.dtype if in_one_chunk else statistics_dtype(student.hidden.dtype)
        self._hidden = torch.empty_like(hidden) if wanted[0] else None
        self._weight = empty_for_caller(weight.shape, dtype, weight.device) if wanted[1] else None
        self._bias = torch.zeros_like(bias, dtype=statistics_dtype(dtype)) if wanted[2] and bias is not None else None
        if self._weight is not None:
            # Rows beyond the compared ids are padding and have no part in the loss.
            self._weight[len(student.weight) :] = 0

    def add(self, first: int, last: int, product: Float[Tensor, "n V"]) -> None:
        """Add a chunk: ``product`` is the gradient for the matrix product of rows ``first`` to ``last``."""
        if self._hidden is not None:
            out = self._hidden[first:last]
            if out.dtype == product.dtype:
                torch.mm(product, self._student.weight, out=out)
            else:
                out.copy_(product @ self._student.weight)
        if self._weight is not None:
            _accumulate(self._weight[: product.shape[1]], product, self._student.hidden[first:last], first == 0)
        if self._bias is not None:
            self._bias[: product.shape[1]] += product.sum(0, dtype=self._bias.dtype)

    def finished(self, factor: float | Tensor) -> list[Tensor | None]:
        """The three gradients times ``factor``, each in the dtype of its tensor."""
        gradients = [self._hidden, self._weight, self._bias]
        self._hidden = self._weight = self._bias = None
        if not (isinstance(factor, float) and factor == 1):
            for gradient in gradients:
                if gradient is not None:
                    gradient.mul_(factor)
        return [
            None if gradient is None else gradient.to(dtype)
            for gradient, dtype in zip(gradients, self._dtypes, strict=True)
        ]


def _accumulate(
    total: Float[Tensor, "V H"], product: Float[Tensor, "n V"], hidden: Float[Tensor, "n H"], is_first: bool
) -> None:
    """total += product.T @ hidden. The sum keeps the precision of ``total``."""
    beta = 0 if is_first else 1
    if product.dtype == total.dtype:
        torch.addmm(total, product.t(), hidden, beta=beta, out=total)
    elif product.device.type == "cuda":
        torch.addmm(total, product.t(), hidden, beta=beta, out_dtype=total.dtype, out=total)
    else:
        # No CPU kernel takes half precision and gives fp32, so each chunk's product is rounded once, in the cache.
        height = max(1, _SLICE // hidden.shape[1])
        for start in range(0, len(total), height):
            rows = product[:, start : start + height].t() @ hidden
            if is_first:
                total[start : start + height] = rows
            else:
                total[start : start + height] += rows
