"""Document attention: a row holds several documents, and no document attends to another.

transformers finds the documents by `position_ids` that start again at 0, and only without an attention mask and a cache
(``masking_utils.find_packed_sequence_indices``). Not all models obey: recurrent models do not, nor models that build
their mask or their positions in another way. So each model is tested on its own forward.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import masking_utils

from potstill.data.positions import pad_positions, start_positions
from potstill.errors import UserError

MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids")
"""The columns of a batch that a model reads. Labels are for the loss."""

_PROBE = (5, 3)
"""Tokens of the two documents that a model is tested on."""


def model_inputs(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inputs of a model's forward, out of a batch [B, T].

    Rows of several documents have no attention mask. No real token attends to a pad without it: pads on the right come
    later, and pads on the left are a document of their own. A mask of rows without pads is left out too: it changes
    nothing, and transformers would read it from the device to find that out.
    """
    inputs = {name: batch[name] for name in MODEL_INPUTS if name in batch}
    if len(start_positions(batch)) or not len(pad_positions(batch)):
        inputs.pop("attention_mask", None)
    return inputs


@contextmanager
def mask_is_known(batch: Mapping[str, Tensor]) -> Iterator[None]:
    """A forward of ``model_inputs`` within it does not read the batch from its device to learn whether it needs a mask.

    transformers makes no mask for rows without pads and of one document each, and reads a number of each batch to find
    them. The lists of ``data/positions.py`` say so before. Where a mask is needed, transformers is told that it traces
    the model: then it does not read either, and makes the mask. Where none is, it is told that it found one document.
    """
    needed = len(start_positions(batch)) or len(pad_positions(batch))
    name, known = ("is_tracing", _traced) if needed else ("find_packed_sequence_indices", _one_document)
    before = getattr(masking_utils, name, None)
    if before is None:  # another version of transformers reads in its own way, which is only slower
        yield
        return
    setattr(masking_utils, name, known)
    try:
        yield
    finally:
        setattr(masking_utils, name, before)


def _traced(tensor: Any = None) -> bool:
    return True


def _one_document(position_ids: Tensor) -> None:
    return None


def check_documents_are_isolated(model: nn.Module, name: str) -> None:
    """Refuse a model in which documents of one row attend to each other.

    Runs it once on two rows that differ only in their first document: its logits for the second must be the same.

    Args:
        model: a causal language model, wrapped or not.
        name: its name in messages.

    Raises:
        UserError: the model attends across documents, or takes no positions.
    """
    if not _isolates_documents(model):
        kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        raise UserError(
            f"`corpus.attention: document`: the {name} ({kind}) reads across documents whatever positions it is given; "
            "use `attention: all`, or `layout: padded`"
        )


@torch.no_grad()
def _isolates_documents(model: Any) -> bool:
    device, length = model.device, sum(_PROBE)
    rows = torch.arange(length, device=device).repeat(2, 1) + 1
    rows[1, : _PROBE[0]] = rows[0, : _PROBE[0]].flip(0)
    positions = torch.cat([torch.arange(size, device=device) for size in _PROBE]).repeat(2, 1)
    training, cpu = model.training, torch.device("cpu")
    model.eval()
    try:
        with torch.random.fork_rng([] if device.type == cpu.type else [device]):
            logits = model(**_probe(rows, positions), use_cache=False).logits
    except (TypeError, ValueError, UserError):
        return False
    finally:
        model.train(training)
    one, other = logits[:, _PROBE[0] :].double()
    # A difference that came through a recurrence, or an attention, is far above rounding.
    return bool((one - other).abs().max() <= 4 * torch.finfo(logits.dtype).eps * one.abs().max())


def _probe(rows: Int[Tensor, "2 T"], positions: Int[Tensor, "2 T"]) -> dict[str, Tensor]:
    return model_inputs({"input_ids": rows, "attention_mask": torch.ones_like(rows), "position_ids": positions})
