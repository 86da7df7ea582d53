"""Generate: lets a model respond to prompts, so that work that is stopped and resumed gives the same responses."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from potstill.data.collators import pad_token_id
from potstill.data.prompts.render import ends_of
from potstill.errors import UserError
from potstill.generation.continuous_batches import ContinuousBatches
from potstill.generation.decoding import Decoding, Key, Request, Task, TokenChoice, Written
from potstill.generation.fixed_batches import FixedBatches
from potstill.generation.row_batch import continues_rows
from potstill.generation.server_writer import ServerModel, WritingModel, written_by_server
from potstill.generation.vllm_writer import VllmWriter, writes_with_vllm
from potstill.models.causality import input_device

ResponseWriter = ContinuousBatches | FixedBatches | VllmWriter


@dataclass(frozen=True)
class NamedModel:
    """A model that is asked, with its tokenizer and its name in messages."""

    model: Any
    """Any causal language model, with adapters or quantised weights too, in eval mode; or a :class:`ServerModel` or a
    :class:`WritingModel`."""
    tokenizer: Any
    name: str
    """Such as ``teacher 'smollm2'``."""


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
    fault: str | None = None
    """Why a server's response has no tokens here, and cannot be learned; None if it can."""

    @property
    def key(self) -> Key:
        """The key of this response."""
        return self.id, self.sample

    def as_row(self) -> dict[str, Any]:
        """The fields as JSON types, `fault` only where there is one."""
        return {name: value for name, value in vars(self).items() if name != "fault" or value is not None}


def responses(
    asked: NamedModel, requests: Sequence[Request], decoding: Decoding, done: Collection[Key] = (), *, key: str
) -> Iterator[list[Response]]:
    """Let a model respond to each question, several responses at a time.

    ``requests`` and ``decoding`` alone decide which responses are computed together, in blocks of a few batches. So
    work that was stopped after any response and is resumed with ``done`` gives the same responses as uninterrupted
    work, on the same machine: it repeats the block that was stopped. Another ``batch_size`` rounds the logits
    differently in their last bits, which changes a response only where two tokens are that close.

    ``decoding`` alone decides how responses are written: a checkpoint's own generation settings do not apply. The
    random state of the process stays unchanged.

    Args:
        asked: the model. A response ends at its tokenizer's ``data.prompts.render.end_token_id`` or end-of-text token.
        requests: all questions, also those whose responses are in ``done``.
        decoding: how responses are written.
        done: the responses that exist already; they are not given again.
        key: the recipe's key for the limit of tokens, for messages.

    Yields:
        The new responses that end at the same time.

    Raises:
        UserError: as :func:`check_context_length`, before any response is written.
    """
    check_context_length(asked.model.config, requests, decoding.max_new_tokens, asked.name, key)
    todo, have = tasks(requests, decoding), set(done)
    if have.issuperset(one.key for one in todo):
        return
    ends = ends_of(asked.tokenizer)
    choose = TokenChoice(decoding, ends, ids_without_token(asked.model, asked.tokenizer))
    if isinstance(asked.model, ServerModel | WritingModel):
        for one in written_by_server(asked.model, [one for one in todo if one.key not in have], decoding, choose):
            yield [_response(one, ends, asked.tokenizer)]
        return
    with _writer(asked, choose, todo) as writer:
        for written in _written(writer, todo, have):
            yield [_response(one, ends, asked.tokenizer) for one in written]


def _written(writer: ResponseWriter, todo: Sequence[Task], have: Collection[Key]) -> Iterator[list[Written]]:
    """The responses that are missing, block by block."""
    for at in range(0, len(todo), writer.block_size):
        block = todo[at : at + writer.block_size]
        missing = {one.key for one in block}.difference(have)
        if not missing:
            continue
        for written in writer.write(block):
            if new := [one for one in written if one.key in missing]:
                yield new
            missing -= {one.key for one in new}
            if not missing:
                break


@contextmanager
def _writer(asked: NamedModel, choose: TokenChoice, todo: Sequence[Task]) -> Iterator[ResponseWriter]:
    size, longest = choose.decoding.batch_size, len(todo[0].prompt_ids) + choose.most
    if not writes_with_vllm(choose.decoding.engine, asked.model, asked.name):
        yield writer_of(asked, choose, size, todo, continues_rows(asked.model, longest))
        return
    writer, place = VllmWriter(asked.model, choose, size), input_device(asked.model)
    try:
        # vLLM has a copy of the weights, and two copies may be too much for a GPU.
        asked.model.to(torch.device("cpu"))
        writer.take_weights(longest)
        yield writer
    finally:
        writer.close()
        asked.model.to(place)


def streamed_response(asked: NamedModel, request: Request, decoding: Decoding, show: Callable[[str], None]) -> Response:
    """Let a model respond to one prompt, and show the response piece by piece as it is written.

    Args:
        asked: the model. A response ends as in :func:`responses`.
        request: the prompt, after which the model has room for a whole response.
        decoding: how the response is written.
        show: gets each piece; together they are the response's text.
    """
    ends = ends_of(asked.tokenizer)
    choose = TokenChoice(decoding, ends, ids_without_token(asked.model, asked.tokenizer))
    writer = FixedBatches(asked.model, choose, 1, pad_token_id(asked.tokenizer))
    ((written,),) = writer.write([Task((request.id, 0), request.prompt_ids)], _Shown(asked.tokenizer, ends, show))
    return _response(written, ends, asked.tokenizer)


class _Shown(BaseStreamer):
    """Gives the text of a response to a function, as soon as its characters are whole."""

    def __init__(self, tokenizer: Any, ends: list[int], show: Callable[[str], None]) -> None:
        self._tokenizer, self._ends, self._show = tokenizer, ends, show
        self._ids: list[int] | None = None
        self._shown = ""

    def put(self, value: Tensor) -> None:
        if self._ids is None:  # the prompt comes first
            self._ids = []
            return
        self._ids += [token for token in value.tolist() if token not in self._ends]
        text = _text(self._tokenizer, self._ids)
        # A character of several tokens is not whole before its last one.
        if not text.endswith("\ufffd"):
            self._give(text)

    def end(self) -> None:
        self._give(_text(self._tokenizer, self._ids or []))

    def _give(self, text: str) -> None:
        if new := text[len(self._shown) :]:
            self._show(new)
            self._shown = text


def tasks(requests: Sequence[Request], decoding: Decoding) -> list[Task]:
    """The responses to write, in order: those to the longest prompts first.

    So prompts of similar length are computed together, and a lack of memory shows at once.
    """
    assert len({one.id for one in requests}) == len(requests), "two questions have one id"
    ordered = sorted(requests, key=lambda one: -len(one.prompt_ids))
    return [
        Task((one.id, sample), one.prompt_ids, one.messages) for one in ordered for sample in range(decoding.samples)
    ]


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


def writer_of(
    asked: NamedModel, choose: TokenChoice, size: int, todo: Sequence[Task], together: bool
) -> ContinuousBatches | FixedBatches:
    """The writer of responses that lets transformers run a model.

    Args:
        asked: the model.
        choose: chooses the tokens, and ends the responses.
        size: the greatest number of responses written at a time.
        todo: all responses that will be asked for.
        together: whether the model ``row_batch.continues_rows``.
    """
    if together:
        return ContinuousBatches(asked.model, choose, size, todo)
    return FixedBatches(asked.model, choose, size, pad_token_id(asked.tokenizer))


def ids_without_token(model: PreTrainedModel | ServerModel | WritingModel, tokenizer: Any) -> list[int]:
    """Ids of the model without a token: many heads are padded to a round size."""
    known = set(tokenizer.get_vocab().values())
    return [token for token in range(model.config.get_text_config().vocab_size) if token not in known]


def _response(written: Written, ends: list[int], tokenizer: Any) -> Response:
    if written.fault is not None:
        return Response(*written.key, "", 0, hit_limit=False, fault=written.fault)
    ended = written.ids[-1] in ends
    ids = written.ids[: len(written.ids) - ended]
    return Response(*written.key, _text(tokenizer, ids), len(ids), hit_limit=not ended)


def _text(tokenizer: Any, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
