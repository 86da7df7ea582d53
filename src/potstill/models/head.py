"""The head: the last layer, which turns hidden states into logits. Losses hold it apart and apply it in chunks."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Head:
    """A language model's last layer: ``logits = finish_logits(hidden @ weight.T, bias, scale, softcap)``."""

    weight: Float[Tensor, "V H"]
    bias: Float[Tensor, "V"] | None = None
    scale: float = 1.0
    softcap: float | None = None


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of logits and of sums over the vocabulary: never below fp32, whatever the matrix products are in."""
    return torch.promote_types(dtype, torch.float32)


def finish_logits(
    product: Float[Tensor, "N V"],
    bias: Float[Tensor, "V"] | Float[Tensor, "N V"] | None,
    scale: float,
    softcap: float | None,
) -> Float[Tensor, "N V"]:
    """``softcap * tanh(scale * (product + bias) / softcap)`` in fp32, or in fp64 where the product is fp64.

    A step whose parameter is None (for ``scale``: 1) is left out, so the result may be the product itself.
    """
    logits = product.to(statistics_dtype(product.dtype))
    if bias is not None:
        logits = logits + bias
    if scale != 1:
        logits = logits * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits
