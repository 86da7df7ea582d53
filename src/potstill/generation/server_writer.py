"""Server writer: a model behind a server writes responses; their token ids are known, so nothing is tokenized again."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from potstill.generation.decoding import Decoding, Task, TokenChoice, Written
from potstill.servers.api import AskedPrompt, Writing, WrittenText
from potstill.servers.connect import Server, WritingServer
from potstill.servers.model import ServedModel, check_unchanged

RESPONSES_BETWEEN_PROBES = 16


@dataclass(frozen=True)
class ServerModel:
    """A model behind a server that scores texts, which ``generate.responses`` asks."""

    server: Server
    config: Any
    """What is known of it: `vocab_size` and `max_position_embeddings`."""


@dataclass(frozen=True)
class WritingModel:
    """A model behind a server that tells the distributions of what it writes, which ``generate.responses`` asks."""

    server: WritingServer
    config: Any
    """As :class:`ServerModel` has it."""
    known: ServedModel
    """What is known of the model, to prove that it is still the same."""
    keep: Callable[[Sequence[int], WrittenText], None] | None = None
    """Keeps what it told of a response, before the response is given; gets the prompt's tokens too."""


def written_by_server(
    model: ServerModel | WritingModel, tasks: Sequence[Task], decoding: Decoding, choose: TokenChoice
) -> Iterator[Written]:
    """Let a server write responses, many at a time, in the order of the tasks.

    Each response draws with a seed of its own, in the server's way. So it does not depend on its neighbours, as far as
    the server's sums do not.

    Raises:
        UserError: the server cannot write one, or has another model now.
    """
    ends = sorted(choose.ends)
    how = Writing(decoding.max_new_tokens, ends, decoding.temperature, decoding.top_p, decoding.top_k)

    def seed(task: Task) -> int:
        return choose.random(task.key).getrandbits(31)

    if isinstance(model, WritingModel):
        return _with_predictions(model, tasks, how, seed)
    api = model.server.api
    return model.server.client.in_order(
        lambda task: Written(task.key, api.write(task.prompt_ids, how, seed(task))), tasks
    )


def _with_predictions(
    model: WritingModel, tasks: Sequence[Task], how: Writing, seed: Callable[[Task], int]
) -> Iterator[Written]:
    """The responses. They are only given after the server has proven that it still had the same model."""
    k = min(model.server.given.top_k, model.known.vocabulary)

    def ask(task: Task) -> tuple[Task, WrittenText]:
        return task, model.server.api.write(AskedPrompt(task.prompt_ids, task.messages), how, seed(task), k)

    waiting: list[tuple[Task, WrittenText]] = []
    for number, one in enumerate(model.server.client.in_order(ask, tasks), start=1):
        waiting.append(one)
        if len(waiting) < RESPONSES_BETWEEN_PROBES and number < len(tasks):
            continue
        check_unchanged(model.server, model.known)
        for task, text in waiting:
            if model.keep is not None:
                model.keep(task.prompt_ids, text)
            yield Written(task.key, [*text.ids], text.fault)
        waiting = []
