"""Processes of their own, like those of `python -m potstill`, that need not import torch and all that anew.

Each is forked from a server that imported the libraries and did nothing else. So it starts in a moment instead of ten
seconds. Where the start itself is tested, or what is imported, a test starts `sys.executable`.
"""

import atexit
import gc
import multiprocessing
import os
import runpy
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory

IMPORTED = (
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.llama.modeling_llama",
    "transformers.models.mixtral.modeling_mixtral",
    "codecarbon",
    "vl_convert",
    "potstill.cli.main",
    "potstill.pipeline.forecast",
    "potstill.stages.capture",
    "potstill.stages.control",
    "potstill.stages.corpus",
    "potstill.stages.evaluate",
    "potstill.stages.report",
    "potstill.stages.student",
    "potstill.stages.teachers",
    "potstill.training.fit",
)
"""What most processes import. Whatever else one needs, it imports itself."""

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(list(IMPORTED))


def run(*words: object, **variables: str) -> "CompletedProcess[str]":
    """What `subprocess.run([sys.executable, *words])` returns, with further variables in the environment.

    The first word is `-m`, `-c` or a script.
    """
    with started(*words, **variables) as (process, out, err):
        process.join()
        return _ended(words, process, out, err)


def run_ranks(count: int, *words: object, **variables: str) -> None:
    """Run so many ranks, as `torchrun` does. When one fails, all are ended, and the test fails with its words."""
    # Imported here, so that a test that needs no ranks need not import torch.
    from torch.distributed import TCPStore

    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "localhost"}
    shared |= {
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    with ExitStack() as open_ones:
        starts = [started(*words, **shared | variables, RANK=str(n), LOCAL_RANK=str(n)) for n in range(count)]
        ranks = [open_ones.enter_context(start) for start in starts]
        left = {process.sentinel: process for process, *_ in ranks}
        while left and not any(process.exitcode for process, *_ in ranks):
            for sentinel in connection.wait(list(left)):
                left.pop(sentinel).join()
        failed = [_ended(words, *rank) for rank in ranks if rank[0].exitcode]
        assert not failed, failed[0].stdout[-3000:] + failed[0].stderr[-3000:]


@contextmanager
def started(*words: object, **variables: str) -> Iterator[tuple[BaseProcess, Path, Path]]:
    """A process at work, and the files of what it prints; it is killed if it is still there in the end."""
    with TemporaryDirectory() as folder:
        files = Path(folder, "out"), Path(folder, "err")
        given = [str(word) for word in words], os.environ | variables, str(Path.cwd()), [str(file) for file in files]
        process = _server.Process(target=_main, args=given)
        process.start()
        try:
            yield process, *files
        finally:
            process.kill()
            process.join()


def _ended(words: tuple[object, ...], process: BaseProcess, out: Path, err: Path) -> "CompletedProcess[str]":
    return CompletedProcess(words, process.exitcode, out.read_text(), err.read_text())


def _main(words: list[str], environment: dict[str, str], folder: str, files: list[str]) -> None:
    """What Python does with its words, in a process that was forked a moment ago."""
    # A training takes less time than to look for garbage among all that is imported.
    gc.freeze()
    for stream, file in zip((1, 2), files, strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    kind, *rest = words
    try:
        if kind == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif kind == "-c":
            sys.argv = ["-c", *rest[1:]]
            exec(rest[0], {"__name__": "__main__"})
        else:
            sys.argv = [kind, *rest]
            sys.path.insert(0, str(Path(kind).parent))
            runpy.run_path(kind, run_name="__main__")
    finally:
        # A process of multiprocessing ends without them.
        atexit._run_exitfuncs()
