"""Reading a batch: what a model makes of its supervised tokens, in the form that the losses take."""

from collections.abc import Collection, Mapping

from jaxtyping import Float, Int
from torch import Tensor, nn

from potstill.data.labels import labels_of, supervised_states
from potstill.models.document_attention import model_inputs
from potstill.models.head import Head
from potstill.models.head_extraction import hidden_states


def forward(
    model: nn.Module, head: Head | None, batch: Mapping[str, Tensor]
) -> tuple[Float[Tensor, "N states"], Int[Tensor, "N"]]:
    """Run a model over a batch; its hidden states at supervised tokens, and the label that follows each.

    Where the model's head cannot be taken apart (``head`` is None) the states are its logits.

    Args:
        model: a causal language model, wrapped or not.
        head: what ``head_of`` said of it.
        batch: `input_ids`, `labels` (unshifted) and, if rows are padded, `attention_mask`, all [B, T]; where documents
            are read apart, `position_ids`, which begin anew with each.
    """
    states, labels, _ = forward_with_layers(model, head is not None, batch, ())
    return states, labels


def forward_with_layers(
    model: nn.Module, apart: bool, batch: Mapping[str, Tensor], layers: Collection[int]
) -> tuple[Float[Tensor, "N states"], Int[Tensor, "N"], dict[int, Float[Tensor, "N H"]]]:
    """As ``forward``, and what each of ``layers`` gave out for the same tokens.

    ``apart`` says whether the model's head can be taken apart. The head itself is to be read afterwards, with
    ``read_head``: FSDP has the whole of it only from a forward on, until the backward is done.

    Layers are counted from 0, the embeddings not among them; the last one's states are those that go into the head.
    """
    inputs = model_inputs(batch)
    wanted = {"output_hidden_states": True} if layers else {}
    if apart:
        states, outputs = hidden_states(model, **inputs, **wanted, use_cache=False)
    else:
        outputs = model(**inputs, **wanted, use_cache=False)
        states = outputs.logits
    labels = labels_of(batch)
    # A model that spans devices leaves its states on the last of them.
    inner = {
        layer: supervised_states(outputs.hidden_states[layer + 1].to(labels.device), labels)[0] for layer in layers
    }
    return *supervised_states(states.to(labels.device), labels), inner


LayerStates = Mapping[int, Float[Tensor, "N H"]]
"""What some of a model's layers gave out for the supervised tokens of a batch, by the number of the layer."""
