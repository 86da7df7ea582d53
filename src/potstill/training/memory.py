"""Memory: the least that a training needs, told before its first step, and refused where there is less.

Only what is surely needed is counted: the student's weights, the gradients and the optimizer's moments of its trained
weights, and the weights of teachers beside it. Activations come on top; they depend on the batch and on the kernels.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from potstill import distributed
from potstill.console import say
from potstill.device import device
from potstill.errors import UserError
from potstill.losses.chunked import MEMORY_BUDGET

CONTAINER = Path("/sys/fs/cgroup/memory.max")
"""The limit of a container's memory, in bytes or `max`."""
GRADIENT = 4
"""Bytes of a trained weight's gradient, in float32."""
GIB = 2**30
MOST_FOR_LOSS = 4 * GIB
"""Beyond it, the traffic of the head's gradient is a few percent of the time of its products."""


def check_memory(model: Any, teachers: Iterable[Any], arguments: TrainingArguments, key: str) -> None:
    """Print what a training needs at least, and refuse one that needs more than there is.

    A model that is spread over devices or ranks is not counted.

    Args:
        model: the student.
        teachers: models beside it; captured targets lie on disk.
        arguments: name the optimizer, and say whether ranks share one model.
        key: the key of the training in the recipe, for messages.

    Raises:
        UserError: there is less memory.
    """
    if _spread(arguments):
        return
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    needed = bytes_of(model) + trained_bytes(trained, arguments) + sum(map(bytes_of, teachers))
    # On a CPU, the ranks of a machine share its memory.
    ranks = distributed.local_world_size() if device().type == "cpu" else 1
    there = memory_of_device()
    say(f"  needs at least {shown(needed * ranks)} of {shown(there)} of memory")
    _refuse_more_than(needed * ranks, there, key)


def check_parameters(parameters: int, arguments: TrainingArguments, key: str) -> None:
    """Refuse the training of a model that is not made yet, of so many float32 weights.

    Raises:
        UserError: there is less memory.
    """
    if not _spread(arguments):
        _refuse_more_than(parameters * 4 + trained_bytes(parameters, arguments), memory_of_device(), key)


def _spread(arguments: TrainingArguments) -> bool:
    return bool(arguments.fsdp or arguments.deepspeed)


def _refuse_more_than(needed: int, there: int, key: str) -> None:
    if needed > there:
        raise UserError(
            f"`{key}` needs at least {shown(needed)} of memory (weights, gradients, the optimizer and teachers), and "
            f"this machine has {shown(there)}; choose a smaller model, an adapter or another `optim`"
        )


def trained_bytes(trained: int, arguments: TrainingArguments) -> int:
    """The bytes of the gradients and of the optimizer's moments of a number of weights, or fewer."""
    name, options = arguments.optim.value, (arguments.optim_args or "").replace(" ", "")
    moments = 8 if name.startswith("adamw_torch") and "4bit" not in name and "8bit" not in name else 0
    moments += 4 if name == "sgd" and "momentum=" in options else 0
    return trained * (GRADIENT + moments)


def bytes_of(model: Any) -> int:
    """The bytes of a model's weights on this device; 0 for anything else, and for a model that spans devices."""
    if not isinstance(model, torch.nn.Module) or getattr(model, "hf_device_map", None):
        return 0
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())


def memory_of_device() -> int:
    """The bytes of the accelerator's memory, or else of the machine's or its container's."""
    return torch.cuda.mem_get_info()[1] if device().type == "cuda" else memory_of_host()


def memory_of_host() -> int:
    """The bytes of the machine's memory, or of its container's."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = CONTAINER.read_text().strip() if CONTAINER.is_file() else "max"
    return min(machine, int(limit)) if limit.isdecimal() else machine


def loss_budget(device: torch.device, coming: int) -> int:
    """Bytes for a chunk of logits of the loss: more on a GPU with free memory, and the same on every CPU.

    Each chunk reads and writes the whole gradient of the head. So larger chunks take less time, as long as memory has
    room: they get an eighth of it, as a power of two, so that a resumed training comes to the same number.

    Args:
        coming: bytes that the training has yet to allocate.
    """
    if device.type != "cuda":
        return MEMORY_BUDGET
    eighth = max(1, free_memory(device) - coming) // 8
    return min(max(2 ** (eighth.bit_length() - 1), MEMORY_BUDGET), MOST_FOR_LOSS)


def free_memory(device: torch.device) -> int:
    """The bytes of a GPU that neither a tensor nor another process holds."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def shown(size: int) -> str:
    """Bytes for people: `0.2 GiB`."""
    return f"{size / GIB:,.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:,.1f} MiB"
