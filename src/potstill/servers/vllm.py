"""vLLM: its OpenAI-style server scores a prompt of token ids (`prompt_logprobs`), at temperature 1 only.

Source: vLLM's `entrypoints/openai/protocol.py`; `tests/servers/recorded/` has answers of version 0.32.0.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from potstill.errors import UserError
from potstill.servers.api import ScoredRow, ServerFacts, Writing
from potstill.servers.checked_rows import scored_row
from potstill.servers.client import Client, RefusedError
from potstill.servers.openai_style import listed_model, text_of, tokens_of, version_of

_MOST = re.compile(r"logprobs.{0,80}?max\w* allowed[^0-9]{0,20}(\d+)", re.IGNORECASE)
_TOO_MANY = re.compile(r"logprobs.{0,120}?(greater|larger|more|exceed|max)", re.IGNORECASE)
_TOO_LONG = re.compile(r"(context|model'?s?) ?len|maximum (model|context)|longer than|too long", re.IGNORECASE)


class VllmApi:
    """A server of vLLM's (:class:`ServerApi`).

    Args:
        client: sends the requests.
        model: the model's name at the server.
    """

    def __init__(self, client: Client, model: str) -> None:
        self._client, self._model, self._here = client, model, client.connection

    def facts(self) -> ServerFacts:
        """The model's entry, and the version; the server does not tell its limit of log-probabilities."""
        entry = listed_model(self._client, self._model)
        longest = entry.get("max_model_len")
        # A request must ask for one new token, for which there must be room.
        return ServerFacts(self._model, version_of(self._client, "/version"), longest and int(longest) - 1, None)

    def tokenize(self, text: str) -> list[int]:
        """The server's tokens of a text."""
        return tokens_of(self._client, self._model, text)

    def detokenize(self, ids: Sequence[int]) -> str:
        """The server's text of tokens."""
        return text_of(self._client, self._model, ids)

    def score(self, row: Sequence[int], k: int, temperature: float) -> ScoredRow:
        """The predictions for a row of at least two tokens.

        Raises:
            UserError: more log-probabilities or tokens are asked for than the server allows, or it scores no prompts.
        """
        assert temperature == 1, "the recipe refuses other temperatures"
        asked = {"prompt": [*row], "max_tokens": 1, "temperature": 0, "prompt_logprobs": k}
        choice = self._complete(asked, k, len(row))
        found = choice.get("prompt_logprobs")
        if not isinstance(found, list) or not found or found[0] is not None:
            raise UserError(
                f"{self._here.setting}: {self._here.url} gives no log-probabilities of a prompt; vLLM and SGLang give "
                "them (`api: vllm`, `api: sglang`), while llama.cpp's server, Ollama and hosted chat models do not"
            )
        entries = [*_entries(found[1:], self._here.setting)]
        of_labels = [entry.get(token) for entry, token in zip(entries, row[1:], strict=False)]
        # The row's own token comes in addition where it is not one of the k.
        kept = [
            {id: value for id, value in entry.items() if len(entry) <= k or id != token}
            for entry, token in zip(entries, row[1:], strict=False)
        ]
        kept += entries[len(kept) :]
        return scored_row(row, k, kept, of_labels, self._here.setting)

    def write(self, prompt: Sequence[int], how: Writing, seed: int) -> list[int]:
        """The tokens after a prompt. The server's own defaults, which come from the model's folder, do not apply."""
        asked = {
            "prompt": [*prompt],
            "max_tokens": how.max_new_tokens,
            "temperature": how.temperature,
            "top_p": how.top_p,
            "top_k": how.top_k or 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "seed": seed,
            "stop_token_ids": [*how.ends],
            "ignore_eos": True,
            "return_token_ids": True,
        }
        choice = self._complete(asked, 0, len(prompt) + how.max_new_tokens)
        ids = choice.get("token_ids")
        if not isinstance(ids, list) or not ids:
            raise UserError(f"{self._here.setting}: {self._here.url} gives no ids of written tokens; take a newer vLLM")
        if ids[-1] not in how.ends and choice.get("stop_reason") in how.ends:
            ids = [*ids, choice["stop_reason"]]
        return [int(token) for token in ids]

    def _complete(self, asked: Mapping[str, Any], k: int, length: int) -> Mapping[str, Any]:
        try:
            found = self._client.post("/v1/completions", {"model": self._model, **asked})
        except RefusedError as refusal:
            raise self._explained(refusal, k, length) from refusal
        try:
            usage = found.get("usage") or {}
            self._client.count_tokens(usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0)
            choice: Mapping[str, Any] = found["choices"][0]
        except (AttributeError, KeyError, TypeError, IndexError) as error:
            raise UserError(
                f"{self._here.setting}: {self._here.url} does not answer as vLLM does; see `api`"
            ) from error
        return choice

    def _explained(self, refusal: RefusedError, k: int, length: int) -> UserError:
        here = self._here
        if refusal.status == 404:
            return UserError(f"`teachers.{here.name}.model`: {here.url} has no model {self._model!r} any more")
        if refusal.status in (400, 422) and k and _TOO_MANY.search(refusal.said):
            most = _MOST.search(refusal.said)
            lower = f"lower it to {most[1]}" if most else "lower it"
            return UserError(
                f"`teachers.{here.name}.top_k` is {k:,}, and the server allows fewer log-probabilities; {lower}, or "
                f"start vLLM with `--max-logprobs {k}`"
            )
        if refusal.status in (400, 422) and _TOO_LONG.search(refusal.said):
            return UserError(
                f"{here.setting}: a sample of {length:,} tokens is longer than the server reads "
                f"({_first_sentence(refusal.said)}); start vLLM with a larger `--max-model-len`, or cut samples "
                "shorter (`corpus.sequence_length`)"
            )
        return refusal


def _first_sentence(said: str) -> str:
    return said.partition(". ")[0]


def _entries(found: Sequence[Any], what: str) -> Iterator[dict[int, float]]:
    """The log-probability of each token, position by position."""
    try:
        for entry in found:
            yield {int(id): value["logprob"] for id, value in entry.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{what} answers with predictions of another form than vLLM's; see `api`") from error
