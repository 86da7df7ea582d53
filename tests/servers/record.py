"""Records what real servers answer, for tests without a server: `make record-servers` writes `recorded/*.json`.

Each file holds what was asked, the status, and the answer as it came. `test_real_servers.py` asks again and compares.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

from servers.real_servers import (
    KEY,
    LONGEST,
    MOST_K,
    RealServer,
    converted,
    gguf_file,
    llama_cpp_server,
    vllm_server,
)

FOLDER = Path(__file__).with_name("recorded")
MODEL = "smollm2"
# "The capital of France is Paris.", "2 + 2 = 4, and naïve café 日本" and "<|im_start|>user\nHi<|im_end|>\n"
ROWS = [
    [504, 3575, 282, 4649, 314, 7042, 30],
    [34, 1232, 216, 34, 446, 216, 36, 28, 284, 15486, 46494, 37366, 17097, 241, 115, 40993],
    [1, 4093, 198, 26843, 2, 198],
]
BEGINNING = ROWS[0][:5]


class Question(NamedTuple):
    """A request to a server."""

    path: str
    body: dict[str, Any] | None = None
    """None: it is a GET."""
    key: str | None = KEY
    """What is sent as the key, where the server wants one."""


def vllm_questions() -> Iterator[tuple[str, Question]]:
    """What vLLM is asked, by the name of the file."""
    yield "version", Question("/version")
    yield "models", Question("/v1/models")
    text = "The capital of France is Paris."
    asked = {"model": MODEL, "prompt": text, "add_special_tokens": False, "return_token_strs": True}
    yield "tokenize", Question("/tokenize", asked)
    yield "tokenize-special", Question("/tokenize", asked | {"prompt": "<|im_start|>user\nnaïve 日本<|im_end|>"})
    yield "detokenize", Question("/detokenize", {"model": MODEL, "tokens": ROWS[0]})
    # The end of a turn, and a token that is one byte of a character.
    yield "detokenize-part", Question("/detokenize", {"model": MODEL, "tokens": [2, 241]})
    yield "detokenize-unknown", Question("/detokenize", {"model": MODEL, "tokens": [10**6]})
    score = {"model": MODEL, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 8, "return_token_ids": True}
    for number, row in enumerate(ROWS):
        yield f"score-{number}", Question("/v1/completions", score | {"prompt": row})
    yield "score-batch", Question("/v1/completions", score | {"prompt": ROWS})
    # Its log-probabilities are those of score-0: a temperature does not change them.
    yield "score-temperature", Question("/v1/completions", score | {"prompt": ROWS[0], "temperature": 2.0})
    yield "score-one-token", Question("/v1/completions", score | {"prompt": [504]})
    yield "score-label-only", Question("/v1/completions", score | {"prompt": ROWS[0], "prompt_logprobs": 0})
    yield "score-no-tokens", Question("/v1/completions", score | {"prompt": []})
    yield "score-too-many", Question("/v1/completions", score | {"prompt": ROWS[0], "prompt_logprobs": MOST_K + 1})
    yield "score-too-long", Question("/v1/completions", score | {"prompt": [504] * (LONGEST + 1)})
    yield "score-full-length", Question("/v1/completions", score | {"prompt": [504] * LONGEST, "prompt_logprobs": 0})
    yield "score-unknown-token", Question("/v1/completions", score | {"prompt": [10**6]})
    yield "wrong-model", Question("/v1/completions", score | {"model": "other", "prompt": ROWS[0]})
    yield "wrong-key", Question("/v1/completions", score | {"prompt": ROWS[0]}, key="the-wrong-key")
    yield "no-key", Question("/v1/models", key=None)
    yield from _vllm_writes()


def _vllm_writes() -> Iterator[tuple[str, Question]]:
    write = {"model": MODEL, "prompt": BEGINNING, "max_tokens": 8, "temperature": 0, "return_token_ids": True}
    likeliest = {"logprobs": 8}
    yield "write", Question("/v1/completions", write | likeliest)
    yield "write-ids-as-keys", Question("/v1/completions", write | likeliest | {"return_tokens_as_token_ids": True})
    # An end token is among the ids that come back.
    yield "write-until", Question("/v1/completions", write | {"stop_token_ids": [198]})
    yield "write-drawn", Question("/v1/completions", write | {"temperature": 0.8, "top_p": 0.9, "seed": 3, "n": 2})
    yield "write-batch", Question("/v1/completions", write | {"prompt": [BEGINNING, ROWS[2]]})
    chat = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8, "temperature": 0}
    yield (
        "chat",
        Question("/v1/chat/completions", chat | {"logprobs": True, "top_logprobs": 8, "return_token_ids": True}),
    )


def llama_cpp_questions() -> Iterator[tuple[str, Question]]:
    """What llama.cpp's server is asked, by the name of the file."""
    yield "props", Question("/props")
    yield "models", Question("/v1/models")
    yield "tokenize", Question("/tokenize", {"content": "The capital of France is naïve 日本", "with_pieces": True})
    yield "detokenize", Question("/detokenize", {"tokens": ROWS[0]})
    write = {"n_predict": 8, "n_probs": 8, "temperature": 0, "cache_prompt": False, "return_tokens": True}
    yield "write", Question("/completion", write | {"prompt": BEGINNING})
    yield "write-too-long", Question("/completion", write | {"prompt": [504] * (LONGEST + 1)})
    openai = {"max_tokens": 8, "temperature": 0, "cache_prompt": False}
    # Neither echo nor anything else makes it score a given text: echo is accepted, and has no effect.
    yield (
        "completions-echo",
        Question("/v1/completions", openai | {"prompt": BEGINNING, "logprobs": 8, "echo": True, "max_tokens": 1}),
    )
    chat = {"messages": [{"role": "user", "content": "Say hello."}], "logprobs": True, "top_logprobs": 8}
    yield "chat", Question("/v1/chat/completions", openai | chat)


def answer(server: RealServer, question: Question) -> dict[str, Any]:
    """What a server answers, as it is recorded."""
    key = question.key if server.key is not None else None
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    method = "GET" if question.body is None else "POST"
    with httpx2.Client(headers=headers) as client:
        client.timeout = None  # the first answer may take long
        got = client.request(method, server.url + question.path, json=question.body)
    asked = {"method": method, "path": question.path, "key": key, "body": question.body}
    return {"asked": asked, "status": got.status_code, "answer": got.json()}


def _record(server: RealServer, kind: str, questions: Iterator[tuple[str, Question]]) -> None:
    for name, question in questions:
        text = json.dumps(answer(server, question), ensure_ascii=False, indent=1)
        (FOLDER / f"{kind}-{name}.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Write all files."""
    FOLDER.mkdir(exist_ok=True)
    with llama_cpp_server(gguf_file()) as server:
        _record(server, "llama-cpp", llama_cpp_questions())
    with tempfile.TemporaryDirectory() as made, vllm_server(converted(Path(made) / MODEL)) as server:
        _record(server, "vllm", vllm_questions())


if __name__ == "__main__":
    main()
