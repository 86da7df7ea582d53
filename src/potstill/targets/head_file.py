"""The teacher's head in a store of hidden states: one safetensors file and an entry in the header."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from potstill.errors import UserError
from potstill.models.head import Head
from potstill.targets.durable_writes import write_atomically

NAME = "head.safetensors"


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def head_bytes(head: Head) -> bytes:
    """The head's weight and bias as a safetensors file."""
    tensors = {"weight": head.weight} | ({} if head.bias is None else {"bias": head.bias})
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def head_entry(head: Head, saved: bytes) -> dict[str, Any]:
    """The header's entry for a head: its scale, its softcap and the fingerprint of its file."""
    return {"scale": head.scale, "softcap": head.softcap, "fingerprint": _digest(saved)}


def write_head(store: Path, saved: bytes) -> None:
    """Write the head's file; the caller holds the folder's lock."""
    write_atomically(store / NAME, saved)


def read_head(store: Path, entry: dict[str, Any], device: torch.device) -> Head:
    """Read the head that a header's entry describes.

    Raises:
        UserError: the head's file is missing or changed.
    """
    path = store / NAME
    saved = path.read_bytes() if path.exists() else b""
    if _digest(saved) != entry["fingerprint"]:
        raise UserError(f"{path} is missing or damaged: delete the folder and run `potstill capture` again.")
    tensors = {name: tensor.to(device) for name, tensor in load(saved).items()}
    return Head(tensors["weight"], tensors.get("bias"), entry["scale"], entry["softcap"])
