"""llama.cpp's server: its route `/completion` continues token ids, and tells the ids of what it wrote and of the
likeliest tokens in their place, at temperature 1.

Source: llama.cpp's `tools/server/README.md`; `tests/servers/recorded/` has answers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from potstill.errors import UserError
from potstill.servers.api import AskedPrompt, ServerFacts, Writing, WrittenText
from potstill.servers.client import Client, RefusedError
from potstill.servers.model_tokens import ModelTokens
from potstill.servers.openai_style import listed_model
from potstill.servers.written import WrittenReader

NEUTRAL = {
    "min_p": 0.0,
    "typical_p": 1.0,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "dry_multiplier": 0.0,
    "xtc_probability": 0.0,
    "mirostat": 0,
}
"""The server's own defaults, which its command line may change, do not apply."""


class LlamaCppApi:
    """A server of llama.cpp's (:class:`servers.api.WritingApi`, :class:`servers.api.KnowsTokens`).

    Args:
        client: sends the requests.
        model: the model's name at the server.
        tokens: the tokens of its tokenizer.
    """

    def __init__(self, client: Client, model: str, tokens: ModelTokens) -> None:
        self._client, self._model, self._tokens, self._here = client, model, tokens, client.connection

    def facts(self) -> ServerFacts:
        """The model's entry, and the version; the server gives as many log-probabilities as are asked for."""
        entry = listed_model(self._client, self._model)
        props = self._client.get("/props")
        version = props.get("build_info") if isinstance(props, dict) else None
        longest = (entry.get("meta") or {}).get("n_ctx")
        return ServerFacts(self._model, None if version is None else str(version), longest, None)

    def tokenize(self, text: str) -> list[int]:
        """The server's tokens of a text."""
        asked = {"content": text, "add_special": False, "parse_special": True}
        return [int(token) for token in self._ask("/tokenize", asked, "tokens")]

    def detokenize(self, ids: Sequence[int]) -> str:
        """The server's text of tokens."""
        return str(self._ask("/detokenize", {"tokens": [*ids]}, "content"))

    def write(self, prompt: AskedPrompt, how: Writing, seed: int, k: int) -> WrittenText:
        """What the server writes after a prompt's ids.

        Raises:
            UserError: the prompt has no room there, or the server answers otherwise than llama.cpp.
        """
        asked = {
            "prompt": [*prompt.ids],
            "n_predict": how.max_new_tokens,
            "n_probs": k,
            "post_sampling_probs": False,
            "temperature": how.temperature,
            "top_p": how.top_p,
            "top_k": how.top_k or 0,
            "seed": seed,
            # What an earlier prompt left is not rounded alike.
            "cache_prompt": False,
            "return_tokens": True,
            **NEUTRAL,
        }
        try:
            found = self._client.post("/completion", {"model": self._model, **asked})
        except RefusedError as refusal:
            raise self._explained(refusal) from refusal
        try:
            read, stop, content = found["tokens_evaluated"], found["stop_type"], found["completion_probabilities"]
            whole = not found["truncated"] and stop in ("eos", "limit")
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{self._here.setting}: {self._here.url} does not answer as llama.cpp's server does; see `api`"
            ) from error
        if read != len(prompt.ids) or not whole:
            raise UserError(
                f"{self._here.setting}: {self._here.url} did not read a prompt of {len(prompt.ids):,} tokens as it is, "
                "or cut it; start it with a longer context (`--ctx-size`)"
            )
        self._client.count_tokens(read, len(content))
        return WrittenReader(self._tokens, how.ends, self._here.setting)(content, stop == "eos")

    def _explained(self, refusal: RefusedError) -> UserError:
        if refusal.status == 400 and "context size" in refusal.said:
            return UserError(
                f"{self._here.setting}: a prompt is longer than the server reads ({refusal.said}); start it with a "
                "longer context (`--ctx-size`, which its slots share), or cut samples shorter"
            )
        return refusal

    def _ask(self, path: str, body: Mapping[str, Any], name: str) -> Any:
        found = self._client.post(path, body)
        if not isinstance(found, dict) or name not in found:
            raise UserError(
                f"{self._here.setting}: {self._here.url} answers {path} without `{name}`; it is no server of this `api`"
            )
        return found[name]
