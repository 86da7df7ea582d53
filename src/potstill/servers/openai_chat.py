"""OpenAI's style: the route `/v1/chat/completions` writes the next turn of a conversation, and tells the likeliest
tokens as texts. The server renders the conversation, so its tokens are counted, here too.

Source: OpenAI's reference of chat completions; `tests/servers/recorded/` has answers of vLLM and llama.cpp.
"""

from dataclasses import replace

from potstill.errors import UserError
from potstill.servers.api import AskedPrompt, ScoredRow, ServerFacts, Writing, WrittenText
from potstill.servers.client import Client
from potstill.servers.model_tokens import ModelTokens
from potstill.servers.openai_style import listed_model
from potstill.servers.written import WrittenReader

NO_MESSAGES = "follows tools or reasoning, which are not sent"


class OpenaiChatApi:
    """A server in OpenAI's style (:class:`servers.api.WritingApi`).

    Args:
        client: sends the requests.
        model: the model's name at the server.
        tokens: the tokens of its tokenizer.
    """

    def __init__(self, client: Client, model: str, tokens: ModelTokens) -> None:
        self._client, self._model, self._tokens, self._here = client, model, tokens, client.connection

    def facts(self) -> ServerFacts:
        """The model's entry; such servers have no common route for a version.

        Raises:
            UserError: also where the tokenizer has no chat template.
        """
        if not self._tokens.question("?").messages:
            raise UserError(
                f"`teachers.{self._here.name}.api: openai` is asked in conversations, and its tokenizer has no chat "
                "template; name one that has it (`tokenizer`), or use another `api`"
            )
        longest = listed_model(self._client, self._model).get("max_model_len")
        return ServerFacts(self._model, None, longest and int(longest), None)

    def write(self, prompt: AskedPrompt, how: Writing, seed: int, k: int) -> WrittenText:
        """What the server writes after a prompt's messages.

        Raises:
            UserError: the server makes other tokens of the messages, or tells no log-probabilities.
        """
        if not prompt.messages:
            return WrittenText([], ScoredRow.of_nothing(), NO_MESSAGES)
        asked = {
            "model": self._model,
            "messages": [*prompt.messages],
            "max_tokens": how.max_new_tokens,
            "temperature": how.temperature,
            "top_p": how.top_p,
            "seed": seed,
            "logprobs": True,
            "top_logprobs": k,
        }
        found = self._client.post("/v1/chat/completions", asked)
        try:
            choice, usage = found["choices"][0], found["usage"]
            reason, content = choice["finish_reason"], (choice["logprobs"] or {}).get("content") or []
            read, written = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
        except (AttributeError, KeyError, TypeError, IndexError) as error:
            raise UserError(
                f"{self._here.setting}: {self._here.url} gives no log-probabilities of a chat as OpenAI's style has "
                "them; see `api`"
            ) from error
        self._check_counts(read, len(prompt.ids), written, len(content))
        self._client.count_tokens(read, written)
        text = WrittenReader(self._tokens, how.ends, self._here.setting)(content, reason == "stop")
        return text if reason in ("stop", "length") else replace(text, ids=[], fault=f"was ended by {reason!r}")

    def _check_counts(self, read: int, asked: int, written: int, told: int) -> None:
        """Refuse a conversation that was rendered otherwise, and an answer of which tokens are hidden."""
        here = self._here
        if read != asked:
            raise UserError(
                f"`teachers.{here.name}.tokenizer`: {here.url} made {read:,} tokens of a conversation that has "
                f"{asked:,} with the chat template here; name the tokenizer with the server's template"
            )
        # Some servers count the end token, and do not tell it.
        if written - told not in (0, 1):
            raise UserError(
                f"{here.setting}: {here.url} wrote {written:,} tokens of an answer and tells {told:,} of them; let its "
                "model answer without hidden reasoning, or take another one"
            )
