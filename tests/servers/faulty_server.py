"""A small server with the routes of vLLM's and SGLang's, over a tiny model, that can be told to do what servers do."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from transformers import PreTrainedModel

from tiny import tokenizer

MODEL = "tiny"
VERSION = "0.32.0"
Fault = Callable[["Scripted", dict[str, Any]], "Reply | None"]
"""Changes a request's reply; None: the server answers as it does."""


@dataclass
class Reply:
    """A reply of HTTP."""

    status: int
    content: Any
    headers: dict[str, str] = field(default_factory=dict)
    broken_after: int | None = None
    """Close the connection after so many bytes."""


@dataclass
class Scripted:
    """What the server has and does; tests change it while it runs."""

    model: PreTrainedModel
    key: str | None = None
    longest: int = 128
    most_k: int = 64
    words: Any = field(default_factory=tokenizer)
    faults: dict[str, list[Fault | None]] = field(default_factory=dict)
    """For each path, what happens to its next requests, one after another."""
    always: dict[str, Fault] = field(default_factory=dict)
    """For each path, what happens to each request that no other fault meets."""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    most_at_once: int = 0
    url: str = ""
    _now: int = 0
    _lock: Any = field(default_factory=threading.Lock)

    def reply(self, path: str, body: dict[str, Any], key: str | None) -> Reply:
        """The reply to a request."""
        with self._lock:
            self.asked.append((path, body))
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            queue = self.faults.get(path)
            fault = queue.pop(0) if queue else self.always.get(path)
        try:
            if self.key is not None and key != f"Bearer {self.key}":
                return Reply(401, {"error": "Unauthorized"})
            given = fault(self, body) if fault is not None else None
            return given or self.right(path, body)
        finally:
            with self._lock:
                self._now -= 1

    def right(self, path: str, body: dict[str, Any]) -> Reply:
        """What a whole server replies."""
        routes = {
            "/v1/models": lambda: Reply(200, {"data": [{"id": MODEL, "max_model_len": self.longest}]}),
            "/version": lambda: Reply(200, {"version": VERSION}),
            "/get_server_info": lambda: Reply(200, {"version": VERSION}),
            "/tokenize": lambda: Reply(200, {"tokens": self.words.encode(body["prompt"], add_special_tokens=False)}),
            "/detokenize": lambda: Reply(200, {"prompt": self.words.decode(body["tokens"])}),
            "/v1/completions": lambda: self.vllm(body),
            "/generate": lambda: self.sglang(body),
        }
        return routes[path]() if path in routes else Reply(404, {"detail": "Not Found"})

    def log_probs(self, ids: list[int], temperature: float = 1.0) -> torch.Tensor:
        """The model's log-probabilities after each token, in float64 of float32 logits."""
        with torch.no_grad(), self._lock:
            return (self.model(torch.tensor([ids])).logits[0].double() / temperature).log_softmax(-1)

    def written(self, ids: list[int], most: int, ends: list[int]) -> list[int]:
        """The likeliest tokens after some."""
        found: list[int] = []
        while len(found) < most and (not found or found[-1] not in ends):
            found.append(int(self.log_probs(ids + found)[-1].argmax()))
        return found

    def vllm(self, body: dict[str, Any]) -> Reply:
        """As vLLM completes."""
        ids, k = body["prompt"], body.get("prompt_logprobs")
        if body["model"] != MODEL:
            return _error(404, f"The model `{body['model']}` does not exist.")
        if len(ids) + body["max_tokens"] > self.longest:
            return _error(
                400, f"This model's maximum context length is {self.longest} tokens. However, you requested more"
            )
        choice: dict[str, Any] = {"prompt_logprobs": None, "stop_reason": None}
        if k is None:
            choice["token_ids"] = self.written(ids, body["max_tokens"], body["stop_token_ids"])
        elif k > self.most_k:
            said = f"Requested prompt logprobs of {k}, which is greater than max allowed: {self.most_k}"
            return _error(400, said)
        else:
            choice["prompt_logprobs"] = [None, *self._entries(ids, k)]
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(choice.get("token_ids", [0]))}
        return Reply(200, {"choices": [choice], "usage": usage})

    def _entries(self, ids: list[int], k: int) -> Iterator[dict[str, Any]]:
        rows = self.log_probs(ids)[:-1]
        likeliest = rows.topk(k)
        ranks = ((rows > rows.gather(1, torch.tensor(ids[1:])[:, None])).sum(-1) + 1).tolist()
        for row, label, rank, values, kept in zip(
            rows, ids[1:], ranks, likeliest.values.tolist(), likeliest.indices.tolist(), strict=True
        ):
            entry = {} if label in kept else {label: (float(row[label]), rank)}
            entry |= {id: (value, place + 1) for place, (id, value) in enumerate(zip(kept, values, strict=True))}
            yield {str(id): {"logprob": value, "rank": place} for id, (value, place) in entry.items()}

    def sglang(self, body: dict[str, Any]) -> Reply:
        """As SGLang generates."""
        ids, params = body["input_ids"], body["sampling_params"]
        meta: dict[str, Any] = {"prompt_tokens": len(ids), "completion_tokens": 1}
        if not body.get("return_logprob"):
            found = self.written(ids, params["max_new_tokens"], params["stop_token_ids"])
            return Reply(200, {"output_ids": found, "meta_info": meta})
        rows = self.log_probs(ids, params["temperature"])[:-1]
        labels = [[float(row[id]), id, None] for row, id in zip(rows, ids[1:], strict=True)]
        likeliest = [row.topk(body["top_logprobs_num"]) for row in rows]
        meta["input_token_logprobs"] = [[None, ids[0], None], *labels]
        meta["input_top_logprobs"] = [
            None,
            *(
                [[value, id, None] for value, id in zip(*map(torch.Tensor.tolist, one), strict=True)]
                for one in likeliest
            ),
        ]
        return Reply(200, {"output_ids": [0], "meta_info": meta})


def _error(status: int, message: str) -> Reply:
    return Reply(status, {"error": {"message": message, "type": "BadRequestError", "code": status}})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    scripted: Scripted

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: dict[str, Any]) -> None:
        reply = self.scripted.reply(self.path, body, self.headers.get("Authorization"))
        content = reply.content if isinstance(reply.content, bytes) else json.dumps(reply.content).encode()
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(content)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content if reply.broken_after is None else content[: reply.broken_after])
        self.close_connection = reply.broken_after is not None

    def log_message(self, *_: Any) -> None:
        """A test's output is not a server's log."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that goes away is no error."""


@contextmanager
def serving(scripted: Scripted) -> Iterator[Scripted]:
    """Serve it on a free port of this machine; its `url` says where."""
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"scripted": scripted}))
    scripted.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield scripted
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
