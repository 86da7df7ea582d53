"""Connect: the client of a recipe's served teacher, and the module that speaks its server's language."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from potstill import distributed
from potstill.recipe.teachers import ScoringTeacher, ServerTeacher
from potstill.servers.api import ServerApi
from potstill.servers.client import Client, Connection
from potstill.servers.sglang import SglangApi
from potstill.servers.vllm import VllmApi

APIS: Mapping[str, Callable[[Client, str], ServerApi]] = {"vllm": VllmApi, "sglang": SglangApi}


@dataclass(frozen=True)
class Server:
    """A server, and how it is asked."""

    given: ScoringTeacher
    client: Client
    api: ServerApi

    @classmethod
    def of(cls, name: str, given: ScoringTeacher) -> Self:
        """The server of the teacher with this name.

        Raises:
            UserError: the environment variable with its key is not set.
        """
        client = client_of(name, given)
        return cls(given, client, APIS[given.api](client, given.model))


def client_of(name: str, given: ServerTeacher) -> Client:
    """The client of the teacher with this name. Ranks share the places for requests.

    Raises:
        UserError: the environment variable with its key is not set.
    """
    places = max(1, given.concurrency // distributed.world_size())
    return Client(Connection(name, given.server, given.key, places, given.timeout, given.requests_per_second))
