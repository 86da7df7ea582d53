"""llama.cpp: runs a GGUF file in a process of its own, by the server that xllamacpp carries.

The server tells no log-probabilities of a whole text, but it tells hidden states. Logits are their product with the
head of the same file: all layers run in llama.cpp's kernels, and only the last product is ours.
"""

import importlib.metadata
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import httpx2
import torch
from torch import Tensor

from potstill.data.labels import supervised_mask
from potstill.errors import UserError
from potstill.losses.teacher_target import HiddenTarget
from potstill.models.head import Head

SERVER = Path(__file__).with_name("llama_cpp_server.py")
GREEDY = {"samplers": ["top_k"], "top_k": 1, "return_tokens": True, "cache_prompt": False}
"""How a completion is asked for: the likeliest token, and no cache of an earlier prompt."""
CERTAIN = 1e9
"""Added to the logit of a token that must be written."""
TIMEOUT = 600.0
"""Seconds for one answer of the server."""


def check_installed() -> None:
    """Check that llama.cpp is here.

    Raises:
        UserError: it is not.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise UserError(
            "`export.to`: a GGUF file is measured by xllamacpp, which is not installed here: "
            "pip install 'potstill[export]'"
        )


class LlamaCpp:
    """A GGUF file that llama.cpp runs. It is closed at the end of a `with` block.

    Args:
        file: the GGUF file.
        head: the head of the file, in float32.
        context: the most tokens that it reads and writes at once.

    Raises:
        UserError: llama.cpp cannot open the file; the message has llama.cpp's reason.
    """

    def __init__(self, file: Path, head: Head, context: int) -> None:
        check_installed()
        self.name = f"llama.cpp (xllamacpp {importlib.metadata.version('xllamacpp')})"
        self._head = head
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (it is open as long as the server)
        command = [sys.executable, str(SERVER), str(file), str(context), str(torch.get_num_threads())]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        address = _address(self._process.stdout)
        if address is None:
            self._process.wait()
            reason = self._reason()
            self.close()
            raise UserError(f"llama.cpp cannot open {file.name} ({reason})")
        # No proxy stands between two processes of one machine.
        self._client = httpx2.Client(base_url=address, timeout=TIMEOUT, trust_env=False)

    def __enter__(self) -> "LlamaCpp":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server."""
        if hasattr(self, "_client"):
            self._client.close()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        self._process.terminate()
        self._process.wait()
        self._log.close()

    def token_ids(self, text: str) -> list[int]:
        """The tokens of a text; special tokens within it are read as such, and none is added."""
        asked = {"content": text, "add_special": False, "parse_special": True}
        return [int(each) for each in self._ask("/tokenize", asked)["tokens"]]

    def rendered(self, messages: Sequence[Mapping[str, str]]) -> str:
        """A conversation up to the assistant's turn, by the file's template."""
        return str(self._ask("/apply-template", {"messages": list(messages)})["prompt"])

    def outputs(self, batch: Mapping[str, Tensor]) -> HiddenTarget:
        """The states before the head at a batch's supervised tokens, row-major."""
        ids, wanted = batch["input_ids"].cpu(), supervised_mask(batch).cpu()
        real = batch["attention_mask"].cpu().bool() if "attention_mask" in batch else torch.ones_like(ids).bool()
        states = [
            self._states(row[kept].tolist())[taught[kept]] for row, kept, taught in zip(ids, real, wanted, strict=True)
        ]
        return HiddenTarget(torch.cat(states).to(batch["input_ids"].device), self._head)

    def _states(self, tokens: list[int]) -> Tensor:
        (found,) = self._ask("/embeddings", {"content": tokens, "embd_normalize": -1})
        return torch.tensor(found["embedding"], dtype=torch.float32)

    def written(self, prompt: Sequence[int], most: int) -> tuple[list[int], bool]:
        """The likeliest tokens after a prompt, and whether an end token stopped them. It is left out."""
        found = self._ask("/completion", GREEDY | {"prompt": list(prompt), "n_predict": most})
        ids, stopped = [int(each) for each in found["tokens"]], found["stop_type"] == "eos"
        return ids[:-1] if stopped else ids, stopped

    def ends_among(self, tokens: Iterable[int]) -> list[int]:
        """Those of some tokens at which it stops: those that the file names, and others that it knows by their text."""
        return [token for token in tokens if self._stops_at(token)]

    def _stops_at(self, token: int) -> bool:
        asked = {"prompt": [token], "n_predict": 1, "logit_bias": [[token, CERTAIN]]}
        return bool(self._ask("/completion", GREEDY | asked)["stop_type"] == "eos")

    def write_on(self, prompt: Sequence[int], count: int) -> None:
        """Write so many tokens, and do not stop before."""
        self._ask("/completion", GREEDY | {"prompt": list(prompt), "n_predict": count, "ignore_eos": True})

    def _ask(self, route: str, content: Mapping[str, Any]) -> Any:
        try:
            answer = self._client.post(route, json=dict(content))
        except httpx2.HTTPError as error:
            raise UserError(f"llama.cpp stopped while it ran the file ({self._reason()})") from error
        if answer.status_code != httpx2.codes.OK:
            raise UserError(f"llama.cpp refused a request ({_message(answer)})")
        return answer.json()

    def _reason(self) -> str:
        """The last line in which the server says what is wrong."""
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().splitlines() if line.strip()]
        telling = [line for line in lines if "error" in line.lower() or "assert" in line.lower()]
        return (telling or lines or ["it gave no reason"])[-1 if len(telling) < 2 else 0]


def _address(stream: IO[str] | None) -> str | None:
    """The address that the server prints; None if it ends before."""
    assert stream is not None
    return next((line.strip() for line in stream if line.startswith("http")), None)


def _message(answer: httpx2.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}"
