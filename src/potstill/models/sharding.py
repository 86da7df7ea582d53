"""Sharding: a frozen model of which each rank holds a part, by FSDP2."""

from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel


def shard_frozen(model: nn.Module, device: torch.device) -> None:
    """Leave each rank its part of the first rank's weights, on its device. All ranks must call it, and run it together.

    Only the first rank needs the weights: the others may have the model on the meta device. Its tensors are sent one by
    one, so that no other rank ever has the whole model. A layer is gathered when it runs and freed right after, also
    the last one: without gradients, nothing would free it.

    Args:
        model: a frozen model, whole on the first rank, on the CPU or on its device.
        device: the rank's device.
    """
    is_first = torch.distributed.get_rank() == 0
    weights, buffers = (model.state_dict(), dict(model.named_buffers())) if is_first else ({}, {})
    model.to("meta")
    if isinstance(model, PreTrainedModel):
        # Moved weights are new ones, also those that were one.
        model.tie_weights()
    how: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (torch.distributed.get_world_size(),)),
        "reshard_after_forward": True,
    }
    blocks = set(getattr(model, "_no_split_modules", None) or ())
    for module in [one for one in model.modules() if type(one).__name__ in blocks]:
        fully_shard(module, **how)
    fully_shard(model, **how)
    model.to_empty(device=device)
    whole_from_first = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, weights, options=whole_from_first)
    # A state has no buffers that transformers computes, such as the frequencies of rotary positions.
    for name, buffer in model.named_buffers():
        if is_first:
            buffer.copy_(buffers[name])
        torch.distributed.broadcast(buffer, 0)


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """The whole tensor. All ranks must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
