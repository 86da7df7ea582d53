"""CPU memory for tensors as large as the vocabulary, kept from call to call."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, UntypedStorage

_kept: list[UntypedStorage] = []


def take(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """``torch.empty``; on a CPU in memory that was given back, where one piece is large enough.

    The CPU's allocator takes such large memory from the system anew each time. The page faults cost 25 ms for 64 MiB,
    as much as all passes over the logits in it. On a GPU torch's own allocator keeps freed memory.
    """
    if device.type == "cpu" and _kept:
        # A piece that is too small is freed, so the pieces kept are never more than were in use at once.
        storage = _kept.pop(max(range(len(_kept)), key=lambda i: _kept[i].nbytes()))
        if storage.nbytes() >= prod(shape) * dtype.itemsize:
            return torch.empty(0, dtype=dtype).set_(storage)[: prod(shape)].view(*shape)
    return torch.empty(shape, dtype=dtype, device=device)


def give_back(memory: Tensor) -> None:
    """Keep memory from ``take`` for the next ``take``. The caller must not use it any more."""
    if memory.device.type == "cpu":
        _kept.append(memory.untyped_storage())


def free_all() -> None:
    """Free all memory that is kept."""
    _kept.clear()
