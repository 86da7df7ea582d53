"""Reading a batch: what a model makes of its supervised tokens, in the form that the losses take."""

from collections.abc import Mapping

from jaxtyping import Float, Int
from torch import Tensor, nn

from potstill.losses.head import Head
from potstill.losses.model_head import hidden_states
from potstill.losses.supervised import learned_labels, supervised

MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids")
"""What of a batch a model reads; labels are the loss's business."""


def read_batch(
    model: nn.Module, head: Head | None, batch: Mapping[str, Tensor]
) -> tuple[Float[Tensor, "N states"], Int[Tensor, "N"]]:
    """Run a model over a batch; its hidden states at supervised tokens, and the label that follows each.

    Where the model's head cannot be taken apart (``head`` is None) the states are its logits.

    Args:
        model: a causal language model, wrapped or not.
        head: what ``head_of`` said of it.
        batch: `input_ids`, `labels` (unshifted) and, if rows are padded, `attention_mask`, all [B, T].
    """
    inputs = {name: batch[name] for name in MODEL_INPUTS if name in batch}
    if head is None:
        states = model(**inputs, use_cache=False).logits
    else:
        states, _ = hidden_states(model, **inputs, use_cache=False)
    return supervised(states, labels_of(batch))


def labels_of(batch: Mapping[str, Tensor]) -> Int[Tensor, "B T"]:
    """The labels of a batch that are learned, unshifted; padding it on either side changes nothing."""
    return learned_labels(batch["labels"], batch.get("attention_mask"))
