"""Sharding: a training whose student is split among the ranks by FSDP2, through accelerate."""

from typing import Any

from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin


def use_fsdp_on_cpu(accelerator: Accelerator, plugin: dict[str, Any] | None) -> bool:
    """Have accelerate shard by FSDP2 on a CPU too, as on GPUs. By itself it takes DDP there, and does not say so.

    Args:
        accelerator: the trainer's, before it has prepared anything.
        plugin: the arguments of accelerate's plugin; None where the training does not ask for FSDP.

    Returns:
        Whether it now shards on a CPU.
    """
    state = accelerator.state
    if plugin is None or state.distributed_type != DistributedType.MULTI_CPU:
        return False
    state.fsdp_plugin = FullyShardedDataParallelPlugin(**plugin)
    if accelerator.mixed_precision != "no":
        state.fsdp_plugin.set_mixed_precision(accelerator.mixed_precision)
    # As accelerate does it itself: the one state is copied over the other whenever the other is asked for.
    state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
    return True
