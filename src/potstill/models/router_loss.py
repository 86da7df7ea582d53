"""Router loss: the auxiliary loss of a mixture of experts, which keeps its experts equally busy (arXiv:2101.03961)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from potstill.errors import UserError
from potstill.models.head_extraction import unwrapped

_COEFFICIENTS = ("router_aux_loss_coef", "aux_loss_coef")
"""The names that models and configurations of transformers give it."""


class RouterLoss(NamedTuple):
    """The auxiliary loss of one batch, and the model's own coefficient for it."""

    loss: Float[Tensor, ""]
    coefficient: float

    def add_to(
        self, loss: Float[Tensor, ""], terms: Mapping[str, Tensor], share: Tensor
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss of a micro-batch with its router loss, and its logged terms with `router_loss`, without coefficient.

        Args:
            loss: the loss of the micro-batch.
            terms: the logged terms of the loss.
            share: the micro-batch's share of the optimizer step, by supervised tokens. So the router loss of a step is
                the mean over its micro-batches. Trainer adds them up: its sum grows with their number.
        """
        own = share.to(loss.device) * self.loss.to(loss.device)
        return loss + self.coefficient * own, {**terms, "router_loss": own.detach()}


def router_loss(model: nn.Module, outputs: Any) -> RouterLoss | None:
    """The loss that a model adds to its own if its configuration says `output_router_logits: true`; else None.

    Args:
        model: the model, wrapped or not.
        outputs: the outputs of its forward, with labels or without.

    Raises:
        UserError: the model gives such a loss, but no coefficient for it.
    """
    loss = getattr(outputs, "aux_loss", None)
    if not isinstance(loss, Tensor):
        return None
    inner = unwrapped(model)
    owners = (inner, inner.config, inner.config.get_text_config())
    found = (getattr(owner, name, None) for owner in owners for name in _COEFFICIENTS)
    coefficient = next((value for value in found if isinstance(value, int | float)), None)
    if coefficient is None:
        raise UserError(
            f"{type(inner).__name__} has a router loss without a coefficient (`router_aux_loss_coef`); set "
            "`output_router_logits: false` in its config.json"
        )
    return RouterLoss(loss, float(coefficient))
