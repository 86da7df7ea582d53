"""Speed rounds: how fast models read prompts and write tokens, in one interleaved measurement, and their memory.

Each model writes greedily by its own `generate`. The tokens are drawn at random: for a dense model, they do not matter.
"""

import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from potstill.metrics.speed import DECODE, DECODE_BATCH, PREFILL, PREFILL_BATCH
from potstill.models.causality import input_device

ROUNDS = 5
SECONDS, LIMIT = 20.0, 60.0
"""The seconds that all rounds should take, and those after which no further round begins."""


@dataclass(frozen=True)
class SpeedSizes:
    """The tokens of one round: the rows of a batch, the tokens of each prompt, and the written tokens of each row."""

    batch_size: int
    prompt_tokens: int
    new_tokens: int

    @property
    def cells(self) -> dict[str, tuple[int, int, int]]:
        """Rows, tokens of each prompt and written tokens for each rate.

        A prompt that is read ends with one written token. Text is written after a prompt of one token, so that each
        written token is one forward of one token.
        """
        return {
            PREFILL: (1, self.prompt_tokens, 1),
            PREFILL_BATCH: (self.batch_size, self.prompt_tokens, 1),
            DECODE: (1, 1, self.new_tokens),
            DECODE_BATCH: (self.batch_size, 1, self.new_tokens),
        }

    def seconds(self, pace: "Pace") -> float:
        """The seconds that a round of a model takes, or fewer."""
        batch_step = max(pace.written, pace.read * self.batch_size)
        reading = pace.read * self.prompt_tokens * (1 + self.batch_size)
        return reading + self.new_tokens * (pace.written + batch_step)


@dataclass(frozen=True)
class Pace:
    """The seconds for each token of a short prompt that a model reads, and for each token that it writes."""

    read: float
    written: float

    @classmethod
    def of(cls, model: Any) -> "Pace":
        """The better of two tries: the first one also prepares kernels."""
        prompt = SIZES[-1].prompt_tokens
        read = min(_seconds(model, 1, prompt, 1) for _ in range(2))
        written = min(_seconds(model, 1, 1, 2) for _ in range(2))
        return cls(read / prompt, written / 2)


SIZES = tuple(
    SpeedSizes(*sizes) for sizes in ((16, 128, 32), (8, 128, 32), (8, 64, 16), (4, 32, 16), (4, 16, 8), (2, 8, 4))
)
"""From the largest to the smallest. The largest is taken of which all rounds are expected to fit into SECONDS."""


@dataclass(frozen=True)
class SpeedRounds:
    """Tokens per second of each round, by model and rate; and each model's bytes of memory, None if unknown."""

    sizes: SpeedSizes
    rates: Mapping[str, Mapping[str, tuple[float, ...]]]
    memory: Mapping[str, int | None]

    @property
    def rounds(self) -> int:
        """The number of finished rounds."""
        return min(len(each) for rates in self.rates.values() for each in rates.values())


def measure_rounds(models: Mapping[str, Any]) -> SpeedRounds | None:
    """Measure models in the same rounds, each round in a new random order, for at most about LIMIT seconds.

    Returns None if even one small round would take longer than that.

    Args:
        models: by name. All are in memory at the same time.
    """
    began, random_order = time.perf_counter(), random.Random(0)
    paces = [Pace.of(model) for model in models.values()]
    fitting = [sizes for sizes in SIZES if _fit_positions(models, sizes)] or [SIZES[-1]]
    expected = {sizes: sum(map(sizes.seconds, paces)) for sizes in fitting}
    sizes = next((one for one in fitting if ROUNDS * expected[one] <= SECONDS), fitting[-1])
    # The first half is for the memory's own round.
    if 2 * expected[sizes] > LIMIT:
        return None
    memory = {name: _memory(model, sizes) for name, model in models.items()}
    cells = [(name, rate) for name in models for rate in sizes.cells]
    found: dict[str, dict[str, list[float]]] = {name: {rate: [] for rate in sizes.cells} for name in models}
    last = 0.0
    for _ in range(ROUNDS):
        started = time.perf_counter()
        if started + last - began > LIMIT:
            break
        random_order.shuffle(cells)
        for name, rate in cells:
            rows, prompt, new = sizes.cells[rate]
            seconds = _seconds(models[name], rows, prompt, new)
            found[name][rate].append(rows * (prompt if rate in (PREFILL, PREFILL_BATCH) else new) / seconds)
        last = time.perf_counter() - started
    rates = {name: {rate: tuple(each) for rate, each in own.items()} for name, own in found.items()}
    return SpeedRounds(sizes, rates, memory)


def _fit_positions(models: Mapping[str, Any], sizes: SpeedSizes) -> bool:
    limits = [getattr(model.config.get_text_config(), "max_position_embeddings", None) for model in models.values()]
    needed = 1 + max(sizes.prompt_tokens, sizes.new_tokens)
    return all(limit is None or not 0 < limit < needed for limit in limits)


@torch.no_grad()
def _seconds(model: Any, rows: int, prompt: int, new: int) -> float:
    """The seconds in which a model reads prompts and writes new tokens after them."""
    vocabulary, device = model.config.get_text_config().vocab_size, input_device(model)
    ids = torch.randint(vocabulary, (rows, prompt), generator=torch.Generator().manual_seed(0)).to(device)
    # No token ends the text: no token has the id beyond the last one.
    config = GenerationConfig(max_new_tokens=new, do_sample=False, eos_token_id=[vocabulary], pad_token_id=0)
    _synchronize()
    began = time.perf_counter()
    model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    _synchronize()
    return time.perf_counter() - began


def _synchronize() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def _memory(model: Any, sizes: SpeedSizes) -> int | None:
    """The bytes of a model's weights, and the most that torch allocates beside them for a batch."""
    weights = sum(each.numel() * each.element_size() for each in (*model.parameters(), *model.buffers()))
    if not weights:  # llama.cpp keeps its own weights
        return None

    def run() -> None:
        _seconds(model, sizes.batch_size, sizes.prompt_tokens, 1)
        _seconds(model, sizes.batch_size, 1, sizes.new_tokens)

    if input_device(model).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return weights + torch.cuda.max_memory_allocated() - before
    # Otherwise the profiler prints two lines.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = [one for one in profile.profiler.kineto_results.events() if one.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return weights + most
