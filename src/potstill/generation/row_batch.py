"""Row batch: a model that continues rows of unequal length together; rows join and leave at any step."""

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from potstill.errors import is_out_of_memory
from potstill.generation.row_cache import RowCache, States
from potstill.models.causality import input_device

_PROOF_TOKENS = 8


class RowBatch:
    """The rows that a model continues, at most ``size``; a model that :func:`continues_rows` is needed.

    Args:
        model: the model, in eval mode.
        size: the greatest number of rows.
        prefix: tokens with which every prompt begins; the model reads them once.
        most: the greatest number of tokens of a row.
    """

    def __init__(self, model: PreTrainedModel, size: int, prefix: Sequence[int] = (), most: float = math.inf) -> None:
        self._model, self._body, self._cache = model, _base(model).base_model, RowCache(size, most)
        self._options = decoding_options(model)
        self._prefix: States = ()
        self._shared = 0
        if prefix:
            self._prefix, self._shared = self.read([prefix]), len(prefix)

    @torch.no_grad()
    def read(self, prompts: Sequence[Sequence[int]]) -> States:
        """Let the model read prompts, each as one row, for :meth:`join`. Later rows may use them again."""
        shape = len(prompts), -1, -1, -1
        states = [(keys.expand(*shape), values.expand(*shape)) for keys, values in self._prefix]
        width = max(map(len, prompts)) - self._shared
        if not width:
            return states
        # Pads come after a row's tokens, which do not look ahead, and no row takes their keys and values along.
        rows = [[*prompt[self._shared :], *[0] * (width + self._shared - len(prompt))] for prompt in prompts]
        ids, cache = self._tensor(rows), DynamicCache(states or None)
        positions = torch.arange(self._shared, self._shared + width, device=ids.device).expand_as(ids)
        # Without the head, whose logits nobody reads: for one short prompt it takes longer than the layers.
        self._body(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True, **self._options)
        return [(layer.keys, layer.values) for layer in cache.layers]

    def join(self, states: States, row: int, length: int) -> None:
        """Add a row: the first ``length`` tokens of that row of ``states``."""
        self._cache.join(states, row, length)

    def leave(self, row: int) -> None:
        """Remove a row; the last row takes its place."""
        self._cache.leave(row)

    def clear(self) -> None:
        """Remove all rows."""
        self._cache.clear()

    @torch.no_grad()
    def logits(self, tokens: Sequence[int]) -> Float[Tensor, "R V"]:
        """Let the model read one more token of each row: the logits of the token after it."""
        ids = self._tensor([[token] for token in tokens])
        mask, positions = self._cache.begin_step(ids.device)
        given = {"attention_mask": mask.long(), "position_ids": positions, "past_key_values": self._cache}
        found: Tensor = self._model(input_ids=ids, **given, **self._options, use_cache=True).logits[:, -1]
        self._cache.end_step()
        return found

    def _tensor(self, rows: list[list[int]]) -> Tensor:
        return torch.tensor(rows, device=input_device(self._model))


def continues_rows(model: Any, longest: int) -> bool:
    """Whether a model can continue rows of unequal length together, of at most ``longest`` tokens.

    Its layers must keep keys and values of all these tokens: models with other states, and with windows that are
    shorter, do not. And the logits of rows together must be those of each row alone, which is tried out on two short
    rows, because an architecture may count positions in its own way.
    """
    if not isinstance(model, torch.nn.Module) or "position_ids" not in _arguments(model):
        return False
    try:
        layers = DynamicCache(config=_base(model).config).layers
        return all(_keeps_all(layer, longest) for layer in layers) and _alike_together(model, longest)
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        return False


def _keeps_all(layer: Any, longest: int) -> bool:
    if type(layer) is DynamicSlidingWindowLayer:
        return bool(layer.sliding_window >= longest)
    return type(layer) is DynamicLayer


@torch.no_grad()
def _alike_together(model: Any, longest: int) -> bool:
    length, size = min(_PROOF_TOKENS, longest), model.config.get_text_config().vocab_size
    if length < 4:
        return False
    rows = [[at % size for at in range(length)], [at % size for at in range(3, length)]]
    batch = RowBatch(model, len(rows))
    states = batch.read([row[:-2] for row in rows])
    for at, row in enumerate(rows):
        batch.join(states, at, len(row) - 2)
    batch.logits([row[-2] for row in rows])
    together = batch.logits([row[-1] for row in rows]).float()
    ids = [torch.tensor([row], device=input_device(model)) for row in rows]
    alone = torch.cat([model(input_ids=each, use_cache=False, **decoding_options(model)).logits[:, -1] for each in ids])
    rough = getattr(model, "is_quantized", False)
    tolerance = 0.1 if rough else torch.finfo(alone.dtype).eps ** 0.5
    return bool((together - alone.float()).abs().max() <= tolerance * alone.float().std())


def decoding_options(model: Any) -> dict[str, Any]:
    """What a forward is told when a model writes: a mixture of experts that was trained to balance them would compute
    the loss for it, which fails with a cache.
    """
    return {"output_router_logits": False} if "output_router_logits" in _arguments(model) else {}


def _base(model: Any) -> Any:
    """The model itself, without an adapter around it."""
    return getattr(model, "get_base_model", lambda: model)()


def _arguments(model: Any) -> set[str]:
    return set(inspect.signature(_base(model).forward).parameters)
