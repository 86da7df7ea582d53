"""Ranks: the processes of one run, as `torchrun -m potstill run` starts them.

Rank 0 keeps the books: it alone writes manifests and does the stages that one process can do. All ranks share the run
folder, take the same decisions from it, and train and capture together.
"""

import os
from datetime import timedelta
from typing import Any

PATIENCE = timedelta(days=7)
"""How long ranks wait for a stage that rank 0 does alone."""


def world_size() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this process keeps the books."""
    return rank() == 0


def barrier() -> None:
    """Go on when every rank is here."""
    if world_size() > 1:
        _connect()
        import torch.distributed

        torch.distributed.barrier()


def any_of(mine: bool) -> bool:
    """Whether it holds on at least one rank; every rank must ask."""
    if world_size() == 1:
        return mine
    _connect()
    import torch

    flags: list[bool] = [False] * world_size()
    torch.distributed.all_gather_object(flags, mine)
    return any(flags)


def broadcast(mine: Any) -> Any:
    """What the first rank has; every rank must ask."""
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
