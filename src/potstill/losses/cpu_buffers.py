"""Memory for what is as large as the vocabulary, which a CPU's allocator takes from the system anew each time."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, UntypedStorage

_kept: list[UntypedStorage] = []


def take(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """``torch.empty``, on a CPU in memory that was handed back, where some is large enough.

    To fault fresh memory in costs 25 ms for 64 MiB, as much as all passes over the logits in it. On a GPU torch's own
    allocator keeps what is freed.
    """
    if device.type == "cpu" and _kept:
        # What is too small is let go: no more is ever kept than what was in use at once.
        storage = _kept.pop(max(range(len(_kept)), key=lambda i: _kept[i].nbytes()))
        if storage.nbytes() >= prod(shape) * dtype.itemsize:
            return torch.empty(0, dtype=dtype).set_(storage)[: prod(shape)].view(*shape)
    return torch.empty(shape, dtype=dtype, device=device)


def give_back(memory: Tensor) -> None:
    """Keep what ``take`` gave for the next to take; nobody may look at it any more."""
    if memory.device.type == "cpu":
        _kept.append(memory.untyped_storage())


def free_all() -> None:
    """Free all that is kept."""
    _kept.clear()
