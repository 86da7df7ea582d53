"""Responses: what a model writes when it is asked, in batches that are the same however often the work was stopped."""

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
"""Which response: the question's id, and the number of the sample, from 0."""


@dataclass(frozen=True)
class Request:
    """A question as a model is asked it: its id, and the tokens to go on from (``text.prompts.prompt_ids``)."""

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
    """How responses are written: greedily, or, with a temperature above 0, drawn."""

    max_new_tokens: int
    batch_size: int
    """Responses that are written at a time."""
    samples: int = 1
    """Responses to each question."""
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int = 0

    @classmethod
    def of(cls, section: Generate | Answers) -> Self:
        """What a recipe's section says; what it cannot say is greedy."""
        return cls(**{one.name: getattr(section, one.name) for one in fields(cls) if hasattr(section, one.name)})


@dataclass(frozen=True)
class Response:
    """What a model wrote."""

    id: str
    """The question's."""
    sample: int
    """Which of the responses to that question, from 0."""
    response: str
    """Up to the end token, and without any other special token."""
    tokens: int
    """How many were written before the end token."""
    hit_limit: bool
    """Whether no end token came within the limit."""

    @property
    def key(self) -> Key:
        """Which response it is."""
        return self.id, self.sample


def responses(
    asked: NamedModel, requests: Sequence[Request], decoding: Decoding, done: Collection[Key] = (), *, key: str
) -> Iterator[list[Response]]:
    """Let a model respond to each question, a batch of responses at a time.

    Which responses share a batch follows from ``asked`` and ``decoding`` alone, and each batch has a seed of its own:
    work that was stopped, after whichever response, and goes on with what there is as ``done`` gives what work that
    never stopped gives, on the same machine. Nothing but ``decoding`` decides how: the generation settings that a
    checkpoint brings along are put aside. The random numbers of the process go on as if nothing had been drawn.

    Args:
        asked: the model. A response ends at its tokenizer's ``data.prompts.render.end_token_id`` or end-of-text token.
        requests: all questions, also those whose responses are in ``done``.
        decoding: how responses are written.
        done: the responses that exist already; they are not given again.
        key: the recipe's key for the limit of tokens, for messages.

    Yields:
        What each batch adds. A batch that is done is not begun.

    Raises:
        UserError: as :func:`check_context_length`, before anything is written.
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
    """Which responses are written together: those to prompts of like length, the longest first.

    So few pads are read, and memory that is too small shows at once.
    """
    ordered = sorted(requests, key=lambda one: -len(one.prompt_ids))
    keys = [(one.id, sample) for one in ordered for sample in range(decoding.samples)]
    return [keys[at : at + decoding.batch_size] for at in range(0, len(keys), decoding.batch_size)]


def check_context_length(config: Any, requests: Sequence[Request], max_new_tokens: int, who: str, key: str) -> None:
    """Refuse prompts that leave a model no room for a whole response; a model's configuration is enough to tell.

    Raises:
        UserError: naming the recipe's key, the question, the model and the lengths.
    """
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    longest = max(requests, key=lambda one: len(one.prompt_ids), default=None)
    if positions is None or longest is None or len(longest.prompt_ids) + max_new_tokens <= positions:
        return
    raise UserError(
        f"`{key}` is {max_new_tokens:,}, and {who} has only {positions:,} positions, of which the prompt of question "
        f"{longest.id} takes {len(longest.prompt_ids):,}; lower it, or ask shorter"
    )


def _generation_config(
    model: PreTrainedModel, tokenizer: Any, decoding: Decoding, pad: int, ends: list[int]
) -> GenerationConfig:
    known = set(tokenizer.get_vocab().values())
    # Rows that a head has for no token, which many have to be of a round size.
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
    """Put a checkpoint's generation settings aside: transformers fills in from them whatever it was not given."""
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
    """Random numbers of a batch's own, and afterwards those of before."""
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
