"""Ranks: the processes of one run, as `torchrun -m potstill run` starts them.

Only rank 0 writes manifests and runs the stages that need one process. All ranks share the run folder, take the same
decisions from it, and train and capture together.
"""

import os
from datetime import timedelta
from typing import Any

PATIENCE = timedelta(days=7)
"""How long the other ranks wait for a stage that rank 0 runs alone."""


def world_size() -> int:
    """The number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_world_size() -> int:
    """The number of processes on this machine; 1 where the launcher does not say it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this process is rank 0."""
    return rank() == 0


def barrier() -> None:
    """Wait until every rank has arrived here."""
    if world_size() > 1:
        _connect()
        import torch.distributed

        torch.distributed.barrier()


def gathered(mine: Any) -> list[Any]:
    """The values of `mine` on all ranks, in their order; every rank must call this."""
    if world_size() == 1:
        return [mine]
    _connect()
    import torch

    found: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(found, mine)
    return found


def any_of(mine: bool) -> bool:
    """Whether `mine` is true on at least one rank; every rank must call this."""
    return any(gathered(mine))


def broadcast(mine: Any) -> Any:
    """The value of `mine` on rank 0; every rank must call this."""
    if world_size() == 1:
        return mine
    _connect()
    import torch

    held = [mine]
    torch.distributed.broadcast_object_list(held)
    return held[0]


def _connect() -> None:
    import torch

    if torch.distributed.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
