"""Fixed batches: transformers' own `generate`, for models that cannot continue rows of unequal length together."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from potstill.generation.decoding import Task, TokenChoice, Written
from potstill.generation.row_batch import decoding_options
from potstill.models.causality import input_device


class FixedBatches:
    """Writes responses with a model's ``generate``; a batch ends with its longest response.

    Args:
        model: any causal language model.
        choose: chooses the tokens, and ends the responses.
        size: the number of responses written at a time.
        pad: the id of pads.
    """

    def __init__(self, model: PreTrainedModel, choose: TokenChoice, size: int, pad: int) -> None:
        self.block_size = min(size, getattr(model, "most_rows", size))
        self._model, self._choose, self._pad = model, choose, pad

    def write(self, tasks: Sequence[Task], streamer: BaseStreamer | None = None) -> Iterator[list[Written]]:
        """Write one batch of responses, and yield them. A streamer gets the tokens of one response as they come."""
        batch = self._left_padded([one.prompt_ids for one in tasks])
        width, ends = batch["input_ids"].shape[1], sorted(self._choose.ends)
        config = GenerationConfig(max_new_tokens=self._choose.most, pad_token_id=self._pad, eos_token_id=ends)
        chosen = LogitsProcessorList([_ChosenToken(self._choose, [self._choose.random(one.key) for one in tasks])])
        options = decoding_options(self._model) | ({} if streamer is None else {"streamer": streamer})
        with _default_generation_settings(self._model):
            found: Any = self._model.generate(**batch, **options, generation_config=config, logits_processor=chosen)
        yield [
            Written(one.key, self._to_the_end(ids)) for one, ids in zip(tasks, found[:, width:].tolist(), strict=True)
        ]

    def _left_padded(self, prompts: list[list[int]]) -> dict[str, Tensor]:
        longest = max(map(len, prompts))
        rows = {
            "input_ids": [[self._pad] * (longest - len(prompt)) + prompt for prompt in prompts],
            "attention_mask": [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts],
        }
        device = input_device(self._model)
        return {name: torch.tensor(values, device=device) for name, values in rows.items()}

    def _to_the_end(self, ids: list[int]) -> list[int]:
        """Without the pads after an end token."""
        length = next((at for at, token in enumerate(ids, 1) if token in self._choose.ends), len(ids))
        return ids[:length]


class _ChosenToken(LogitsProcessor):
    """Leaves only the chosen token of each row, so that a greedy `generate` takes it."""

    def __init__(self, choose: TokenChoice, randoms: list[Random]) -> None:
        self._choose, self._randoms = choose, randoms

    def __call__(self, input_ids: Int[Tensor, "R T"], scores: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        chosen = self._choose(scores, self._randoms)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen[:, None], 0.0)


@contextmanager
def _default_generation_settings(model: PreTrainedModel) -> Iterator[None]:
    """Set a checkpoint's generation settings aside, because transformers takes all missing settings from them."""
    own = [(module, vars(module)["generation_config"]) for module in model.modules() if _has_settings(module)]
    try:
        for module, _ in own:
            module.generation_config = GenerationConfig()
        yield
    finally:
        for module, config in own:
            module.generation_config = config


def _has_settings(module: torch.nn.Module) -> bool:
    return vars(module).get("generation_config") is not None
