"""Server writer: a model behind a server writes responses; its token ids come back, so nothing is tokenized again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from potstill.generation.decoding import Decoding, Task, TokenChoice, Written
from potstill.servers.api import Writing
from potstill.servers.connect import Server


@dataclass(frozen=True)
class ServerModel:
    """A model behind a server, which ``generate.responses`` asks."""

    server: Server
    config: Any
    """What is known of it: `vocab_size` and `max_position_embeddings`."""


def written_by_server(
    model: ServerModel, tasks: Sequence[Task], decoding: Decoding, choose: TokenChoice
) -> Iterator[Written]:
    """Let a server write responses, many at a time, in the order of the tasks.

    Each response draws with a seed of its own, in the server's way. So it does not depend on its neighbours, as far as
    the server's sums do not.

    Raises:
        UserError: the server cannot write one.
    """
    ends = sorted(choose.ends)
    how = Writing(decoding.max_new_tokens, ends, decoding.temperature, decoding.top_p, decoding.top_k)

    def ask(task: Task) -> Written:
        seed = choose.random(task.key).getrandbits(31)
        return Written(task.key, model.server.api.write(task.prompt_ids, how, seed))

    return model.server.client.in_order(ask, tasks)
