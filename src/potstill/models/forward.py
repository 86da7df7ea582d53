"""The forward of a model over a batch, at its supervised tokens, in the form that the losses take."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn

from potstill.data.positions import supervised_states
from potstill.models.document_attention import mask_is_known, model_inputs
from potstill.models.head import Head
from potstill.models.head_extraction import hidden_states
from potstill.models.router_loss import RouterLoss, router_loss

LayerStates = Mapping[int, Float[Tensor, "N H"]]
"""The outputs of some of a model's layers at the supervised tokens of a batch, by the number of the layer."""


class SupervisedOutputs(NamedTuple):
    """A model's outputs at the N supervised tokens of a batch."""

    states: Float[Tensor, "N states"]
    labels: Int[Tensor, "N"]
    layers: LayerStates
    router: RouterLoss | None
    """Of a mixture of experts whose configuration asks for it; over all tokens of the batch."""


def forward(
    model: nn.Module, head: Head | None, batch: Mapping[str, Tensor]
) -> tuple[Float[Tensor, "N states"], Int[Tensor, "N"]]:
    """Run a model over a batch: its hidden states at supervised tokens, and the label after each.

    Where the model's head cannot be extracted (``head`` is None), the states are its logits.

    Args:
        model: a causal language model, wrapped or not.
        head: the result of ``head_of`` for this model.
        batch: `input_ids`, `labels` (unshifted) and, if rows are padded, `attention_mask`, all [B, T]. For documents
            that do not attend to each other also `position_ids`, which start again at 0 with each document.
    """
    outputs = forward_with_layers(model, head is not None, batch, ())
    return outputs.states, outputs.labels


def forward_with_layers(
    model: nn.Module, head_is_extracted: bool, batch: Mapping[str, Tensor], layers: Collection[int]
) -> SupervisedOutputs:
    """As ``forward``, and the output of each of ``layers`` at the same tokens, and the model's router loss.

    Args:
        head_is_extracted: whether ``head_of`` gives the model's head. Read the head after this forward, with
            ``read_head``: FSDP has the whole head only from a forward to the end of its backward.
        layers: numbers of layers. Layer 0 is the first layer after the embeddings. The last layer's states go into the
            head.
    """
    inputs = model_inputs(batch)
    wanted = {"output_hidden_states": True} if layers else {}
    with mask_is_known(batch):
        if head_is_extracted:
            states, outputs = hidden_states(model, **inputs, **wanted, use_cache=False)
        else:
            outputs = model(**inputs, **wanted, use_cache=False)
            states = outputs.logits
    inner = {layer: supervised_states(outputs.hidden_states[layer + 1], batch)[0] for layer in layers}
    taught, following = supervised_states(states, batch)
    return SupervisedOutputs(taught, following, inner, router_loss(model, outputs))
