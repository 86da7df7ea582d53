"""Written: the targets of tokens that a server wrote itself, of its own top log-probabilities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from potstill.errors import UserError
from potstill.servers.api import ScoredRow, Writing, WritingApi, WrittenText
from potstill.servers.checked_rows import MOST_MASS, numbers
from potstill.servers.model_tokens import ModelTokens

UNKNOWN_TOKENS = "holds tokens that cannot be told by their text"
OTHER_TOKENS = "is written in other tokens than its text has here"


@dataclass(frozen=True)
class SaidToken:
    """A token as a server names it."""

    id: int | None
    text: bytes | None
    """None where the server gives neither bytes nor whole characters."""
    log_prob: Any


@dataclass(frozen=True)
class Said:
    """What a server said of one token that it wrote: the token, and the likeliest ones in its place."""

    token: SaidToken
    likeliest: Sequence[SaidToken] = ()


SILENT = Said(SaidToken(None, None, -np.inf))
"""An end of which the server says nothing."""


@dataclass(frozen=True)
class WrittenReader:
    """Reads what a server said of the tokens that it wrote, by their ids or else by their bytes.

    Nothing is guessed. A likely token that the tokenizer does not have, or has twice, belongs to all others together. A
    text whose own tokens are not known, or are not those that its text has here, has a fault.
    """

    tokens: ModelTokens
    """Of the model's tokenizer."""
    ends: Sequence[int]
    """The tokens that end a text."""
    what: str
    """The server, for messages."""

    def __call__(self, content: Any, ended: bool) -> WrittenText:
        """The text and its predictions.

        Args:
            content: of each token its `token`, `logprob` and `top_logprobs`, and `bytes` and `id` where they are given.
            ended: whether the model ended the text, rather than a limit.

        Raises:
            UserError: these are no distributions.
        """
        said = self._said(content)
        if said and not any(one.likeliest for one in said):
            raise UserError(
                f"{self.what} gives no `top_logprobs` of what it writes; see `api`, or take a newer version"
            )
        closes = bool(ended and said and self._is_end(said[-1].token))
        body = said[:-1] if closes else said
        ids = self._ids_of(body)
        labels: list[int | None] = [None] * len(body) if ids is None else [*ids]
        if ended:
            body = [*body, said[-1] if closes else SILENT]
            labels.append(end if (end := self._id(body[-1].token)) in self.ends else None)
        scored, fault = self._scored(body, labels), self._fault(ids)
        if ids is None or fault is not None:
            return WrittenText([], scored, fault)
        # Of an end that is not named, only that it is one is known.
        end_id = [self.ends[0] if labels[-1] is None else labels[-1]] if ended else []
        return WrittenText([*ids, *end_id], scored)

    def _said(self, content: Any) -> list[Said]:
        try:
            return [Said(_token(one), [_token(each) for each in one.get("top_logprobs") or ()]) for one in content]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.what} gives no log-probabilities of what it writes; see `api`, or take a newer version"
            ) from error

    def _is_end(self, token: SaidToken) -> bool:
        """Whether the last token of a text that has ended is its end token. Most servers leave out its text."""
        return not token.text or self._id(token) in self.ends

    def _ids_of(self, said: Sequence[Said]) -> list[int] | None:
        """The ids of written tokens: those that the server gives, or else the tokens with the same bytes."""
        given = [one.token.id for one in said if one.token.id is not None]
        if len(given) == len(said):
            return given
        texts = [one.token.text for one in said if one.token.text]
        try:
            found = self.tokens.encode(b"".join(texts).decode())
        except UnicodeDecodeError:
            return None
        return found if len(texts) == len(said) and [self.tokens.of(id) for id in found] == texts else None

    def _fault(self, ids: Sequence[int] | None) -> str | None:
        if ids is None:
            return UNKNOWN_TOKENS
        # A sample is made of an answer's text.
        return None if self.tokens.encode(self.tokens.decode(ids)) == [*ids] else OTHER_TOKENS

    def _id(self, token: SaidToken) -> int | None:
        if token.id is not None:
            return token.id if 0 <= token.id < self.tokens.vocabulary else None
        return self.tokens.id_of(token.text) if token.text else None

    def _scored(self, said: Sequence[Said], labels: Sequence[int | None]) -> ScoredRow:
        most = max((len(one.likeliest) for one in said), default=0)
        ids, log_probs = np.zeros((len(said), most), np.int64), np.full((len(said), most), -np.inf)
        for at, one in enumerate(said):
            values = numbers([each.log_prob for each in one.likeliest], self.what)
            found = [self._id(each) for each in one.likeliest]
            named = {id: value for id, value in zip(found, values, strict=True) if id is not None}
            ids[at, : len(named)], log_probs[at, : len(named)] = [*named], [*named.values()]
        known = np.array([label is not None for label in labels], bool)
        own = np.where(known, numbers([one.token.log_prob for one in said], self.what), -np.inf)
        among = ids == np.array([-1 if label is None else label for label in labels], np.int64)[:, None]
        mass = np.exp(np.where(among, -np.inf, log_probs)).sum(-1) + np.exp(own)
        if (mass > MOST_MASS).any():
            raise UserError(
                f"{self.what} gives one token probabilities that sum to {mass.max():.3f}; they are no distribution"
            )
        return ScoredRow(ids, log_probs, own)


def _token(given: Mapping[str, Any]) -> SaidToken:
    id, text, written = given.get("id"), given["token"], given.get("bytes")
    if written is None and "\ufffd" not in text:
        written = text.encode()
    return SaidToken(id if isinstance(id, int) else None, None if written is None else bytes(written), given["logprob"])


@dataclass(frozen=True)
class NextToken:
    """Scores the token after a row by letting a server write it (:class:`servers.api.Scorer`), for its probes."""

    api: WritingApi
    tokens: ModelTokens
    ends: Sequence[int]

    def score(self, row: Sequence[int], k: int, temperature: float) -> ScoredRow:
        """The prediction of the one token that the server writes after the row's text, as a user's question.

        Raises:
            UserError: the server writes nothing, or tells nothing of it.
        """
        assert temperature == 1, "the recipe refuses other temperatures"
        asked = self.tokens.question(self.tokens.decode(row))
        found = self.api.write(asked, Writing(1, self.ends), 0, k).scored
        # Which of two equally likely tokens it writes says nothing; how likely the likeliest one is says much.
        return replace(found, label_log_probs=found.log_probs.max(-1, initial=-np.inf))
