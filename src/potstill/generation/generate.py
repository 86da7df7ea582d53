"""Generate: lets a model respond to prompts, in batches that stay the same when the work is stopped and resumed."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from potstill.data.collators import pad_token_id
from potstill.data.prompts.render import end_token_id
from potstill.errors import UserError
from potstill.files.atomic import digest
from potstill.recipe.answers import Answers
from potstill.recipe.generate import Generate

Key = tuple[str, int]
"""Identifies a response: the question's id, and the number of the sample, from 0."""


@dataclass(frozen=True)
class Request:
    """A question's id and its prompt's tokens, which the model continues (``data.prompts.render.prompt_ids``)."""

    id: str
    prompt_ids: list[int]


@dataclass(frozen=True)
class NamedModel:
    """A model that is asked, with its tokenizer and its name in messages."""

    model: PreTrainedModel
    """Any causal language model, with adapters or quantised weights too, in eval mode."""
    tokenizer: Any
    name: str
    """Such as ``teacher 'smollm2'``."""


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

    @classmethod
    def of(cls, section: Generate | Answers) -> Self:
        """The settings of a recipe's section; settings that it does not have keep their defaults, which are greedy."""
        return cls(**{one.name: getattr(section, one.name) for one in fields(cls) if hasattr(section, one.name)})


@dataclass(frozen=True)
class Response:
    """A model's response to a question."""

    id: str
    """The question's id."""
    sample: int
    """The number of the response to that question, from 0."""
    response: str
    """The text up to the end token, without special tokens."""
    tokens: int
    """The number of tokens before the end token."""
    hit_limit: bool
    """Whether the response has no end token within the limit."""

    @property
    def key(self) -> Key:
        """The key of this response."""
        return self.id, self.sample


def responses(
    asked: NamedModel, requests: Sequence[Request], decoding: Decoding, done: Collection[Key] = (), *, key: str
) -> Iterator[list[Response]]:
    """Let a model respond to each question, one batch of responses at a time.

    ``requests`` and ``decoding`` alone decide which responses share a batch, and each batch has its own seed. So work
    that was stopped after any response and is resumed with ``done`` gives the same responses as uninterrupted work, on
    the same machine. ``decoding`` alone decides how responses are written: a checkpoint's own generation settings do
    not apply. The random state of the process stays unchanged.

    Args:
        asked: the model. A response ends at its tokenizer's ``data.prompts.render.end_token_id`` or end-of-text token.
        requests: all questions, also those whose responses are in ``done``.
        decoding: how responses are written.
        done: the responses that exist already; they are not given again.
        key: the recipe's key for the limit of tokens, for messages.

    Yields:
        The new responses of each batch. Batches without new responses are skipped.

    Raises:
        UserError: as :func:`check_context_length`, before any response is written.
    """
    model, tokenizer = asked.model, asked.tokenizer
    check_context_length(model.config, requests, decoding.max_new_tokens, asked.name, key)
    prompts, have, pad = {one.id: one.prompt_ids for one in requests}, set(done), pad_token_id(tokenizer)
    assert len(prompts) == len(requests), "two questions have one id"
    ends = sorted({end_token_id(tokenizer), tokenizer.eos_token_id} - {None})
    config = _generation_config(model, tokenizer, decoding, pad, ends)
    for keys in batches(requests, decoding):
        if have.issuperset(keys):
            continue
        batch = _left_padded([prompts[question] for question, _ in keys], pad, model.device)
        with _default_generation_settings(model), _seeded(decoding.seed, keys):
            written = model.generate(**batch, generation_config=config)[:, batch["input_ids"].shape[1] :]
        found = [_response(one, ids, ends, tokenizer) for one, ids in zip(keys, written.tolist(), strict=True)]
        yield [each for each in found if each.key not in have]


def batches(requests: Sequence[Request], decoding: Decoding) -> list[list[Key]]:
    """The responses of each batch: prompts of similar length share a batch, and the longest come first.

    So batches hold few pads, and a lack of memory shows at once.
    """
    ordered = sorted(requests, key=lambda one: -len(one.prompt_ids))
    keys = [(one.id, sample) for one in ordered for sample in range(decoding.samples)]
    return [keys[at : at + decoding.batch_size] for at in range(0, len(keys), decoding.batch_size)]


def check_context_length(config: Any, requests: Sequence[Request], max_new_tokens: int, who: str, key: str) -> None:
    """Refuse prompts that leave a model no room for a whole response; reads only the model's configuration.

    Raises:
        UserError: names the recipe's key, the question, the model and the lengths.
    """
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    longest = max(requests, key=lambda one: len(one.prompt_ids), default=None)
    if positions is None or longest is None or len(longest.prompt_ids) + max_new_tokens <= positions:
        return
    raise UserError(
        f"`{key}` is {max_new_tokens:,}, and {who} has only {positions:,} positions, and the prompt of question "
        f"{longest.id} takes {len(longest.prompt_ids):,} of them; lower it, or shorten the prompt"
    )


def _generation_config(
    model: PreTrainedModel, tokenizer: Any, decoding: Decoding, pad: int, ends: list[int]
) -> GenerationConfig:
    known = set(tokenizer.get_vocab().values())
    # Ids without a token: many heads are padded to a round size.
    nothing = [token for token in range(model.config.get_text_config().vocab_size) if token not in known]
    drawn = {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": decoding.top_k or 0}
    return GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        pad_token_id=pad,
        eos_token_id=ends,
        suppress_tokens=nothing or None,
        do_sample=decoding.temperature > 0,
        **(drawn if decoding.temperature > 0 else {}),
    )


def _left_padded(prompts: list[list[int]], pad: int, device: torch.device) -> dict[str, Tensor]:
    longest = max(map(len, prompts))
    rows = {
        "input_ids": [[pad] * (longest - len(prompt)) + prompt for prompt in prompts],
        "attention_mask": [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts],
    }
    return {name: torch.tensor(values, device=device) for name, values in rows.items()}


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


@contextmanager
def _seeded(seed: int, keys: list[Key]) -> Iterator[None]:
    """Seed the random numbers for one batch, and restore the random state afterwards."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    kind = "cpu" if accelerator is None else accelerator.type
    devices = [] if accelerator is None else range(torch.accelerator.device_count())
    with torch.random.fork_rng(devices, device_type=kind):
        torch.manual_seed(int(digest([seed, keys])[:15], 16))
        yield


def _response(key: Key, ids: list[int], ends: list[int], tokenizer: Any) -> Response:
    length = next((at for at, token in enumerate(ids) if token in ends), len(ids))
    text = tokenizer.decode(ids[:length], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Response(*key, text, length, hit_limit=length == len(ids))
