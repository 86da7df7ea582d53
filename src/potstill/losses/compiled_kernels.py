"""Compiled kernels: functions of a few rows that torch.compile fuses, and that run as they are where it fails."""

import logging
import shutil
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

# Compiling takes about 15 s in a fresh process and saves 1 to 4 ns per logit on a CPU. With this many logits it saves
# three times what it takes.
_LOGITS_WORTH_COMPILING = 2e10


def worth_compiling(tokens: float, vocabulary: int, device: torch.device | str) -> bool:
    """Whether a run over this many supervised tokens, in all its steps, saves more time than compiling takes.

    Ask once, before the first step, with the figures of the whole run. A run that changed its path halfway, or resumed
    on the other path, would not give the same bits. False where there is no compiler.
    """
    has_compiler = shutil.which("g++") or shutil.which("clang++") if torch.device(device).type == "cpu" else True
    return bool(has_compiler) and tokens * vocabulary >= _LOGITS_WORTH_COMPILING


def rows_vary(*tensors: Tensor | None, of: int = 0) -> None:
    """Mark the number of rows, dimension ``of``, as dynamic: the last chunk and the next batch use the same kernel."""
    for tensor in tensors:
        if tensor is not None:
            torch._dynamo.mark_dynamic(tensor, of)


def compiled(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """torch.compile of ``kernel``; with a warning ``kernel`` itself, where compiling fails."""
    # A code object of its own: torch limits the compilations per code object, and all kernels of a factory share one.
    own = FunctionType(kernel.__code__.replace(), kernel.__globals__, kernel.__name__, None, kernel.__closure__)
    made = torch.compile(own, fullgraph=True)
    failed = False

    def call(*arguments: Any) -> Any:
        nonlocal failed
        if not failed:
            try:
                return made(*arguments)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                logger.warning("torch.compile failed; the loss continues without it, more slowly: %s", error)
                failed = True
        return kernel(*arguments)

    return call
