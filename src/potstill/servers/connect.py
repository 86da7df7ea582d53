"""Connect: the client of a recipe's served teacher, and the module that speaks its server's language."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from potstill import distributed
from potstill.recipe.teachers import ScoringTeacher, ServerTeacher, WritingTeacher
from potstill.servers.api import Scorer, ServerApi, WritingApi
from potstill.servers.client import Client, Connection
from potstill.servers.llama_cpp import LlamaCppApi
from potstill.servers.model_tokens import ModelTokens
from potstill.servers.ollama import OllamaApi
from potstill.servers.openai_chat import OpenaiChatApi
from potstill.servers.sglang import SglangApi
from potstill.servers.vllm import VllmApi
from potstill.servers.written import NextToken

APIS: Mapping[str, Callable[[Client, str], ServerApi]] = {"vllm": VllmApi, "sglang": SglangApi}
WRITING_APIS: Mapping[str, Callable[[Client, str, ModelTokens], WritingApi]] = {
    "llama_cpp": LlamaCppApi,
    "ollama": OllamaApi,
    "openai": OpenaiChatApi,
}


@dataclass(frozen=True)
class Server:
    """A server that scores texts, and how it is asked."""

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

    @property
    def scorer(self) -> Scorer:
        """What predicts the tokens of probes."""
        return self.api


@dataclass(frozen=True)
class WritingServer:
    """A server that tells the distributions of what it writes, and how it is asked."""

    given: WritingTeacher
    client: Client
    api: WritingApi
    scorer: Scorer
    """What predicts the next token of probes."""

    @classmethod
    def of(cls, name: str, given: WritingTeacher, tokenizer: Any, ends: Sequence[int]) -> Self:
        """The server of the teacher with this name.

        Args:
            name: the teacher's name.
            given: the recipe's section.
            tokenizer: that of the server's model.
            ends: the tokens that end a text.

        Raises:
            UserError: the environment variable with its key is not set.
        """
        client, tokens = client_of(name, given), ModelTokens(tokenizer)
        api = WRITING_APIS[given.api](client, given.model, tokens)
        return cls(given, client, api, NextToken(api, tokens, ends))


def client_of(name: str, given: ServerTeacher) -> Client:
    """The client of the teacher with this name. Ranks share the places for requests.

    Raises:
        UserError: the environment variable with its key is not set.
    """
    places = max(1, given.concurrency // distributed.world_size())
    return Client(Connection(name, given.server, given.key, places, given.timeout, given.requests_per_second))
