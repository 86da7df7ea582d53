"""Sharding: a frozen model of which each rank holds a part, by FSDP2."""

from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor


def shard_frozen(model: nn.Module, device: torch.device) -> None:
    """Leave each rank its part of every weight, on its device. All ranks must call it, and run the model together.

    A layer is gathered when it runs and freed right after, also the last one: without gradients, nothing would free it.

    Args:
        model: a frozen model, whole on each rank, on the CPU or on its device.
        device: the rank's device.
    """
    how: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (torch.distributed.get_world_size(),)),
        "reshard_after_forward": True,
    }
    blocks = set(getattr(model, "_no_split_modules", None) or ())
    for module in [one for one in model.modules() if type(one).__name__ in blocks]:
        fully_shard(module, **how)
    fully_shard(model, **how)


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """The whole tensor. All ranks must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
