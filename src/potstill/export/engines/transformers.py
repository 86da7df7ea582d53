"""transformers: runs a model that is in memory, such as the student, a merged folder or one of 8 bits."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from potstill.losses.token_scores import WholeDistributions
from potstill.metrics.held_out_text import outputs_of


class Transformers:
    """A model that transformers runs.

    Args:
        model: the model, in eval mode.
        tokenizer: its tokenizer.
        ends: the ids after which it stops.
    """

    name = f"transformers {transformers.__version__}"

    def __init__(self, model: PreTrainedModel, tokenizer: Any, ends: Sequence[int]) -> None:
        self._model, self._tokenizer, self._ends = model, tokenizer, list(ends)
        self._read = outputs_of(model)

    def token_ids(self, text: str) -> list[int]:
        """The tokens of a text, and none besides."""
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def rendered(self, messages: Sequence[Mapping[str, str]]) -> str:
        """A conversation up to the assistant's turn, by the tokenizer's template."""
        return str(self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))

    def outputs(self, batch: Mapping[str, Tensor]) -> WholeDistributions:
        """The model's outputs at a batch's supervised tokens, row-major."""
        return self._read(batch)

    def written(self, prompt: Sequence[int], most: int) -> tuple[list[int], bool]:
        """The likeliest tokens after a prompt, and whether an end token stopped them. It is left out."""
        ids = self._generated(prompt, max_new_tokens=most, eos_token_id=self._ends or None)
        stopped = bool(ids) and ids[-1] in self._ends
        return ids[:-1] if stopped else ids, stopped

    def write_on(self, prompt: Sequence[int], count: int) -> None:
        """Write so many tokens, and do not stop before."""
        self._generated(prompt, max_new_tokens=count)

    @torch.no_grad()
    def _generated(self, prompt: Sequence[int], **how: Any) -> list[int]:
        ids = torch.tensor([list(prompt)], device=self._model.device)
        # The model's own settings may sample or punish repetitions.
        config = GenerationConfig(do_sample=False, pad_token_id=0, **how)
        written = self._model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
        return [int(each) for each in written[0, len(prompt) :]]
