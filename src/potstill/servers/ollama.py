"""Ollama: its route `/api/generate` continues a text as it is (`raw`), and tells the likeliest tokens as texts.

Source: Ollama's `docs/api.md` and `api/types.go`, version 0.12.11 and later. Never tried with a real Ollama.
"""

from collections.abc import Mapping
from typing import Any

from potstill.errors import UserError
from potstill.servers.api import AskedPrompt, ServerFacts, Writing, WrittenText
from potstill.servers.client import Client, RefusedError
from potstill.servers.model_tokens import ModelTokens
from potstill.servers.openai_style import version_of
from potstill.servers.written import WrittenReader


class OllamaApi:
    """A server of Ollama's (:class:`servers.api.WritingApi`).

    Args:
        client: sends the requests.
        model: the model's name at the server.
        tokens: the tokens of its tokenizer.
    """

    def __init__(self, client: Client, model: str, tokens: ModelTokens) -> None:
        self._client, self._model, self._tokens, self._here = client, model, tokens, client.connection

    def facts(self) -> ServerFacts:
        """The version; how much a model reads is a setting of the server, which it does not tell."""
        try:
            self._client.post("/api/show", {"model": self._model})
        except RefusedError as refusal:
            if refusal.status != 404:
                raise
            raise UserError(
                f"`teachers.{self._here.name}.model`: {self._here.url} has no model {self._model!r}; `ollama list` "
                "says which it has"
            ) from refusal
        return ServerFacts(self._model, version_of(self._client, "/api/version"), None, None)

    def write(self, prompt: AskedPrompt, how: Writing, seed: int, k: int) -> WrittenText:
        """What the server writes after the text of a prompt's ids.

        Raises:
            UserError: it made other tokens of the text, or tells no log-probabilities.
        """
        options = {
            "num_predict": how.max_new_tokens,
            "temperature": how.temperature,
            "top_p": how.top_p,
            "top_k": how.top_k or 0,
            "min_p": 0.0,
            "repeat_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "seed": seed,
        }
        text = self._tokens.decode_whole(prompt.ids)
        asked = {"model": self._model, "prompt": text, "raw": True, "stream": False, "options": options}
        found = self._client.post("/api/generate", {**asked, "logprobs": True, "top_logprobs": k})
        self._check_read(found, len(prompt.ids))
        content, written = found.get("logprobs"), found.get("eval_count") or 0
        self._client.count_tokens(len(prompt.ids), written)
        if content is None and written <= 1:  # Ollama leaves an empty list out
            content = []
        return WrittenReader(self._tokens, how.ends, self._here.setting)(content, found.get("done_reason") == "stop")

    def _check_read(self, found: Any, asked: int) -> None:
        read = found.get("prompt_eval_count") if isinstance(found, Mapping) else None
        if not isinstance(read, int):
            raise UserError(f"{self._here.setting}: {self._here.url} does not answer as Ollama does; see `api`")
        if read != asked:
            raise UserError(
                f"`teachers.{self._here.name}.tokenizer`: {self._here.url} read {read:,} tokens of a prompt that has "
                f"{asked:,} here; name the tokenizer of the server's model, or start it with a longer context "
                "(OLLAMA_CONTEXT_LENGTH)"
            )
