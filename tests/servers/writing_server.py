"""The faulty server with the routes of servers that tell the distributions of what they write: llama.cpp's, Ollama's
and OpenAI's style."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from potstill.data.prompts.render import end_token_id
from potstill.servers.model_tokens import ModelTokens
from servers.faulty_server import MODEL, VERSION, Reply, Scripted
from tiny import tokenizer

TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
TELLS_IDS = "/completion"
PATHS = {"llama_cpp": TELLS_IDS, "ollama": "/api/generate", "openai": "/v1/chat/completions"}


@dataclass
class WritingServer(Scripted):
    """A server that writes texts that a test gives it, with its model's predictions of their tokens."""

    says: Callable[[str], str] | None = None
    """Gives the text after a prompt. None: the likeliest tokens."""
    tells_end: bool = True
    """Whether the end token is among the tokens that it tells."""

    def __post_init__(self) -> None:
        # A template is only rendered in the main thread.
        self.end = end_token_id(self.words)

    def right(self, path: str, body: dict[str, Any]) -> Reply:
        """What a whole server replies."""
        routes = {
            "/props": lambda: Reply(200, {"build_info": VERSION}),
            "/api/version": lambda: Reply(200, {"version": VERSION}),
            "/api/show": lambda: Reply(200, {}) if body["model"] == MODEL else Reply(404, {"error": "not found"}),
            TELLS_IDS: lambda: self.llama_cpp(body),
            "/api/generate": lambda: self.ollama(body),
            "/v1/chat/completions": lambda: self.chat(body),
        }
        if path == "/tokenize" and "content" in body:
            return Reply(200, {"tokens": self._ids(body["content"])})
        if path == "/detokenize" and "model" not in body:
            return Reply(200, {"content": self.words.decode(body["tokens"])})
        return routes[path]() if path in routes else super().right(path, body)

    def llama_cpp(self, body: dict[str, Any]) -> Reply:
        """As llama.cpp's server completes."""
        ids = body["prompt"]
        if len(ids) + body["n_predict"] > self.longest:
            said = f"request ({len(ids)} tokens) exceeds the available context size ({self.longest} tokens)"
            return Reply(400, {"error": {"code": 400, "message": said}})
        content, ended = self.told(ids, body["n_predict"], body["n_probs"])
        stop = "eos" if ended else "limit"
        found = {"tokens_evaluated": len(ids), "stop_type": stop, "truncated": False}
        return Reply(200, found | {"completion_probabilities": content})

    def ollama(self, body: dict[str, Any]) -> Reply:
        """As Ollama generates from a raw text."""
        ids = self._ids(body["prompt"])
        content, ended = self.told(ids, body["options"]["num_predict"], body["top_logprobs"])
        counts = {"prompt_eval_count": len(ids), "done_reason": "stop" if ended else "length"}
        counts |= {"eval_count": len(content)}
        return Reply(200, counts | {"logprobs": _without_ids(content)})

    def chat(self, body: dict[str, Any]) -> Reply:
        """As a server in OpenAI's style writes the next turn."""
        rendered = self.words.apply_chat_template(body["messages"], tokenize=False, add_generation_prompt=True)
        ids = self._ids(rendered)
        content, ended = self.told(ids, body["max_tokens"], body["top_logprobs"])
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(content)}
        choice = {"finish_reason": "stop" if ended else "length", "logprobs": {"content": _without_ids(content)}}
        return Reply(200, {"choices": [choice], "usage": usage})

    def told(self, prompt: list[int], most: int, k: int) -> tuple[list[dict[str, Any]], bool]:
        """What is told of the tokens after a prompt, and whether they end."""
        end = self.end
        if self.says is None:
            ids = self.written(prompt, most, [end])
        else:
            ids = [*self._ids(self.says(self.words.decode(prompt))), end][:most]
        rows = self.log_probs(prompt + ids)[len(prompt) - 1 : -1]
        ended = ids[-1] == end
        content = [self._entry(id, row, k) for id, row in zip(ids, rows, strict=True)]
        return (content[:-1] if ended and not self.tells_end else content), ended

    def _entry(self, id: int, row: torch.Tensor, k: int) -> dict[str, Any]:
        values, kept = (each.tolist() for each in row.topk(k))
        likeliest = [self._token(one, value) for one, value in zip(kept, values, strict=True)]
        return self._token(id, float(row[id])) | {"top_logprobs": likeliest}

    def _token(self, id: int, log_prob: float) -> dict[str, Any]:
        text = _bytes(self.words).of(id) or b""
        # As llama.cpp and vLLM do, it leaves out the text of special tokens.
        text = b"" if id in self.words.all_special_ids else text
        return {"id": id, "token": text.decode(errors="replace"), "bytes": [*text], "logprob": log_prob}

    def _ids(self, text: str) -> list[int]:
        return list(self.words.encode(text, add_special_tokens=False))


@cache
def chat_words() -> PreTrainedTokenizerFast:
    """The tiny tokenizer with a chat template."""
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer().backend_tokenizer, eos_token="<|endoftext|>")
    made.chat_template = TEMPLATE
    return made


@cache
def _bytes(words: Any) -> ModelTokens:
    return ModelTokens(words)


def _without_ids(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tokens as texts alone."""
    return [
        {name: value for name, value in one.items() if name not in ("id", "top_logprobs")}
        | ({"top_logprobs": _without_ids(one["top_logprobs"])} if "top_logprobs" in one else {})
        for one in content
    ]
