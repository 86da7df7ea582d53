"""What a server of a teacher is asked, and what it answers; each kind of server has a module with this interface."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class ServerFacts:
    """What a server says about itself and its model."""

    model: str
    """The model's name, as requests must give it."""
    version: str | None
    """The version of the server's program."""
    longest: int | None
    """The most tokens that a row may have."""
    most_k: int | None
    """The most log-probabilities that it gives for a position; None if it does not say so."""


@dataclass(frozen=True, eq=False)
class ScoredRow:
    """A server's predictions for a row of T tokens: entry ``t`` predicts token ``t + 1``, from those up to ``t``.

    The log-probabilities are the server's own, at the temperature that was asked for, over its whole vocabulary. The
    ids of a position differ from each other. An unused entry has any id and a log-probability of ``-inf``.
    """

    ids: Int[np.ndarray, "T-1 K"]
    """The K likeliest tokens, in any order."""
    log_probs: Float[np.ndarray, "T-1 K"]
    """In float64."""
    label_log_probs: Float[np.ndarray, " T-1"]
    """Of the row's own next token, which may be among the K or not."""

    @classmethod
    def of_nothing(cls) -> Self:
        """The predictions of no token."""
        return cls(np.zeros((0, 1), np.int64), np.zeros((0, 1)), np.zeros(0))


@dataclass(frozen=True)
class Writing:
    """How a server writes the tokens after a prompt."""

    max_new_tokens: int
    ends: Sequence[int]
    """The tokens that end the text."""
    temperature: float = 0.0
    """0 writes the likeliest token each time."""
    top_p: float = 1.0
    top_k: int | None = None


@dataclass(frozen=True)
class AskedPrompt:
    """What a server continues: tokens, and the messages of which a chat template has made them, if there are any."""

    ids: Sequence[int]
    messages: Sequence[Mapping[str, str]] = ()
    """Each has a `role` and a `content`."""


@dataclass(frozen=True, eq=False)
class WrittenText:
    """What a server wrote after a prompt: N tokens, and its predictions of each of them."""

    ids: Sequence[int]
    """The last one is an end token if the text has ended. None if they cannot be known (``fault``)."""
    scored: ScoredRow
    """Entry ``t`` predicts token ``t``. Where the server does not tell a distribution, no entry is used."""
    fault: str | None = None
    """Why this text cannot be learned; None if it can."""


class Scorer(Protocol):
    """What gives the predictions for a row of tokens. It may be called from several threads at a time."""

    def score(self, row: Sequence[int], k: int, temperature: float) -> ScoredRow:
        """The predictions for a row of at least two tokens."""


@runtime_checkable
class KnowsTokens(Protocol):
    """A server that turns texts into tokens, and tokens into texts."""

    def tokenize(self, text: str) -> list[int]:
        """The server's tokens of a text, without tokens that it would add around it."""

    def detokenize(self, ids: Sequence[int]) -> str:
        """The server's text of tokens, special tokens included."""


class WritingApi(Protocol):
    """One server that tells the distributions of what it writes, asked in its own way: as :class:`ServerApi`."""

    def facts(self) -> ServerFacts:
        """What the server says about itself; proves that it can be reached, knows the key and has the model."""

    def write(self, prompt: AskedPrompt, how: Writing, seed: int, k: int) -> WrittenText:
        """What the server writes, with the k likeliest tokens of each distribution at temperature 1."""


class ServerApi(Scorer, KnowsTokens, Protocol):
    """One server, asked in its own way. Every method sends requests, and raises ``UserError`` where they fail.

    The methods may be called from several threads at a time.
    """

    def facts(self) -> ServerFacts:
        """What the server says about itself; proves that it can be reached, knows the key and has the model."""

    def write(self, prompt: Sequence[int], how: Writing, seed: int) -> list[int]:
        """The tokens after a prompt, up to and including an end token, or to the limit."""
