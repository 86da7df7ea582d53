"""The head: what turns a model's last hidden states into logits, held apart so that a loss can apply it in chunks."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Head:
    """A language model's last layer.

    ``logits = softcap * tanh(scale * (hidden @ weight.T + bias) / softcap)``, without what is not set.
    """

    weight: Float[Tensor, "V H"]
    bias: Float[Tensor, "V"] | None = None
    scale: float = 1.0
    softcap: float | None = None
