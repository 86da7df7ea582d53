"""Sharding: a training whose student is split among the ranks by FSDP2, through accelerate."""

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from transformers import TrainingArguments


def add_gradients_in_float32(arguments: TrainingArguments) -> None:
    """Have FSDP add up the gradients of the ranks in float32, where layers are gathered and multiplied in bfloat16."""
    if arguments.fsdp_plugin_args is not None and arguments.bf16:
        formats = {"param_dtype": torch.bfloat16, "reduce_dtype": torch.float32, "output_dtype": torch.bfloat16}
        arguments.fsdp_plugin_args.setdefault("mixed_precision_policy", formats)


def use_fsdp_on_cpu(accelerator: Accelerator, arguments: TrainingArguments) -> bool:
    """Have accelerate shard by FSDP2 on a CPU too, as on GPUs. By itself it takes DDP there, and does not say so.

    Args:
        accelerator: the trainer's, before it has prepared anything.
        arguments: say whether the training asks for FSDP.

    Returns:
        Whether it now shards on a CPU.
    """
    state = accelerator.state
    if arguments.fsdp_plugin_args is None or state.distributed_type != DistributedType.MULTI_CPU:
        return False
    state.fsdp_plugin = FullyShardedDataParallelPlugin(**arguments.fsdp_plugin_args)
    # As accelerate does it itself: the one state is copied over the other whenever the other is asked for.
    state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
    return True
