"""SGLang: its own route `/generate` scores a row of token ids, at the temperature of the request.

Source: SGLang's `srt/managers/io_struct.py` and `tokenizer_manager.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from potstill.errors import UserError
from potstill.servers.api import ScoredRow, ServerFacts, Writing
from potstill.servers.checked_rows import scored_row
from potstill.servers.client import Client
from potstill.servers.openai_style import listed_model, text_of, tokens_of, version_of


class SglangApi:
    """A server of SGLang's (:class:`ServerApi`).

    Args:
        client: sends the requests.
        model: the model's name at the server.
    """

    def __init__(self, client: Client, model: str) -> None:
        self._client, self._model, self._here = client, model, client.connection

    def facts(self) -> ServerFacts:
        """The model's entry, and the version; the server gives as many log-probabilities as are asked for."""
        entry = listed_model(self._client, self._model)
        version = version_of(self._client, "/get_server_info") or version_of(self._client, "/server_info")
        longest = entry.get("max_model_len")
        # A request asks for one new token, for which there must be room.
        return ServerFacts(self._model, version, longest and int(longest) - 1, None)

    def tokenize(self, text: str) -> list[int]:
        """The server's tokens of a text."""
        return tokens_of(self._client, self._model, text)

    def detokenize(self, ids: Sequence[int]) -> str:
        """The server's text of tokens."""
        return text_of(self._client, self._model, ids)

    def score(self, row: Sequence[int], k: int, temperature: float) -> ScoredRow:
        """The predictions for a row of at least two tokens.

        Raises:
            UserError: the server answers otherwise than SGLang.
        """
        asked = {
            "input_ids": [*row],
            "sampling_params": {"max_new_tokens": 1, "temperature": temperature},
            "return_logprob": True,
            "logprob_start_len": 0,
            "top_logprobs_num": k,
        }
        meta = self._generate(asked)["meta_info"]
        try:
            # The first token has no prediction; a triple is a log-probability, an id and a text.
            of_labels = [entry[0] for entry in meta["input_token_logprobs"][1:]]
            likeliest = [{int(entry[1]): entry[0] for entry in each} for each in meta["input_top_logprobs"][1:]]
            tokens = [int(entry[1]) for entry in meta["input_token_logprobs"]]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UserError(f"{self._here.setting} gives no log-probabilities of a prompt as SGLang does") from error
        if tokens[1:] != [*row[1:]] and len(tokens) == len(row):
            raise UserError(f"{self._here.setting} answers about other tokens than those of the request")
        return scored_row(row, k, likeliest, of_labels, self._here.setting)

    def write(self, prompt: Sequence[int], how: Writing, seed: int) -> list[int]:
        """The tokens after a prompt. Settings that the request leaves out keep SGLang's neutral defaults."""
        params = {
            "max_new_tokens": how.max_new_tokens,
            "temperature": how.temperature,
            "top_p": how.top_p,
            "top_k": -1 if how.top_k is None else how.top_k,
            "sampling_seed": seed,
            "stop_token_ids": [*how.ends],
            "ignore_eos": True,
        }
        found = self._generate({"input_ids": [*prompt], "sampling_params": params})
        ids = found.get("output_ids")
        if not isinstance(ids, list) or not ids:
            raise UserError(
                f"{self._here.setting}: {self._here.url} gives no ids of written tokens; take a newer SGLang"
            )
        return [int(token) for token in ids]

    def _generate(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        found = self._client.post("/generate", asked)
        meta = found.get("meta_info") if isinstance(found, dict) else None
        if not isinstance(meta, dict):
            raise UserError(f"{self._here.setting}: {self._here.url} does not answer as SGLang does; see `api`")
        self._client.count_tokens(meta.get("prompt_tokens") or 0, meta.get("completion_tokens") or 0)
        return found
