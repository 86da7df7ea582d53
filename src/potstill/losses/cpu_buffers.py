"""CPU memory for tensors as large as the vocabulary, kept from call to call.

The CPU's allocator takes such large memory from the system anew each time. The page faults cost 25 ms for 64 MiB, as
much as all passes over the logits in it. On a GPU torch's own allocator keeps freed memory.
"""

import weakref
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, UntypedStorage

# The C library keeps pieces up to this size by itself: M_MMAP_THRESHOLD goes no further, see mallopt(3).
_KEPT_BY_THE_SYSTEM = 32 * 2**20

_kept: list[UntypedStorage] = []
_freed: list[Tensor] = []
_keeps_freed = False


def take(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """``torch.empty``; on a CPU in memory that was given back, where one piece is large enough."""
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


def keep_freed() -> None:
    """From now on, until ``free_all``, keep what ``empty_for_caller`` handed out, when it is freed."""
    global _keeps_freed
    _keeps_freed = True


def empty_for_caller(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """``torch.empty`` for a tensor that its user frees, such as the gradient of a weight.

    After ``keep_freed``, on a CPU: memory that the last tensor of this kind had, once nothing refers to that any more.
    """
    size = prod(shape) * dtype.itemsize
    if device.type != "cpu" or not _keeps_freed or size <= _KEPT_BY_THE_SYSTEM:
        return torch.empty(shape, dtype=dtype, device=device)
    # As in ``take``, a piece that is too small is freed.
    memory = _freed.pop() if _freed else None
    if memory is None or len(memory) < size:
        memory = torch.empty(size, dtype=torch.uint8)
    # torch holds this array as long as any tensor has a part of its memory.
    array = memory[:size].numpy()
    weakref.finalize(array, _keep, memory).atexit = False
    return torch.from_numpy(array).view(dtype).view(*shape)


def _keep(memory: Tensor) -> None:
    if _keeps_freed:
        _freed.append(memory)


def free_all() -> None:
    """Free all memory that is kept, and keep no more that is freed."""
    global _keeps_freed
    _keeps_freed = False
    _kept.clear()
    _freed.clear()
