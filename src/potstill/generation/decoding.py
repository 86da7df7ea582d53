"""Decoding: what is asked, and how each next token is chosen.

Each response draws with its own random numbers, whose seed is the recipe's, the question's id and the number of the
sample. So a response depends neither on its neighbours in a batch nor on the size of the batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from random import Random
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from potstill.files.atomic import digest
from potstill.recipe.answers import Answers
from potstill.recipe.generate import Generate
from potstill.recipe.section import WritingEngine

Key = tuple[str, int]
"""Identifies a response: the question's id, and the number of the sample, from 0."""


@dataclass(frozen=True)
class Request:
    """A question's id and its prompt's tokens, which the model continues (``data.prompts.render.prompt_ids``)."""

    id: str
    prompt_ids: list[int]
    messages: Sequence[Mapping[str, str]] = ()
    """The messages of which the prompt was made, for servers that make it themselves."""


@dataclass(frozen=True)
class Decoding:
    """How responses are written: greedily, or sampled if the temperature is above 0."""

    max_new_tokens: int
    batch_size: int
    """The number of responses written at a time."""
    samples: int = 1
    """The number of responses to each question."""
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int = 0
    engine: WritingEngine = "transformers"

    @classmethod
    def of(cls, section: Generate | Answers) -> Self:
        """The settings of a recipe's section; settings that it does not have keep their defaults, which are greedy."""
        return cls(**{one.name: getattr(section, one.name) for one in fields(cls) if hasattr(section, one.name)})


@dataclass(frozen=True)
class Task:
    """A response to be written."""

    key: Key
    prompt_ids: list[int]
    messages: Sequence[Mapping[str, str]] = ()


@dataclass(frozen=True)
class Written:
    """A response as tokens; the last one is an end token, unless the response reached the limit."""

    key: Key
    ids: list[int]
    fault: str | None = None
    """Why its tokens are not known, so that there are none; None if they are."""


class TokenChoice:
    """Chooses the next token of each row, by transformers' definitions of temperature, top_k and top_p.

    Args:
        decoding: how tokens are chosen.
        ends: the tokens that end a response.
        never: ids that are never chosen.
    """

    def __init__(self, decoding: Decoding, ends: Sequence[int], never: Sequence[int]) -> None:
        self.decoding, self.ends, self.most = decoding, frozenset(ends), decoding.max_new_tokens
        self.never = [*never]
        self._draws, self._never = decoding.temperature > 0, torch.tensor(self.never).long()
        self._processors = LogitsProcessorList()
        if self._draws:
            self._processors.append(TemperatureLogitsWarper(decoding.temperature))
        if self._draws and decoding.top_k is not None:
            self._processors.append(TopKLogitsWarper(decoding.top_k))
        if self._draws and decoding.top_p < 1:
            self._processors.append(TopPLogitsWarper(decoding.top_p))

    def random(self, key: Key) -> Random:
        """The random numbers of a response: one for each of its tokens, in order."""
        return Random(int(self._digest(key)[:16], 16))

    def seed(self, key: Key) -> int:
        """The seed of a response for an engine with random numbers of its own: 63 bits."""
        return int(self._digest(key)[:16], 16) >> 1

    def _digest(self, key: Key) -> str:
        return digest([self.decoding.seed, key])

    def is_whole(self, ids: Sequence[int]) -> bool:
        """Whether a response that begins with these tokens ends with them, at an end token or at the limit."""
        return ids[-1] in self.ends or len(ids) == self.most

    def __call__(self, logits: Float[Tensor, "R V"], randoms: Sequence[Random]) -> Int[Tensor, " R"]:
        """The next token of each of R rows; a row whose token is drawn takes its next random number."""
        scores = logits.float().index_fill(1, self._never.to(logits.device), -torch.inf)
        if not self._draws:
            return scores.argmax(-1)
        scores = self._processors(torch.empty(0, dtype=torch.long), scores)
        # MPS has no float64. In float32, the sums of a large vocabulary would hide its rarest tokens.
        exact = torch.float32 if scores.device.type == "mps" else torch.float64
        sums = scores.softmax(-1, dtype=exact).cumsum(-1)
        points = torch.tensor([one.random() for one in randoms], dtype=exact, device=sums.device)
        drawn = torch.searchsorted(sums, points[:, None] * sums[:, -1:], right=True)
        return drawn[:, 0].clamp(max=sums.shape[1] - 1)
