"""A head as bytes: its matrices as a safetensors file, and an entry with all else."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load, save

from potstill.models.head import Head


def bytes_digest(data: bytes) -> str:
    """A digest of 32 hexadecimal digits, which identifies bytes that were written or sent."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def head_bytes(head: Head) -> bytes:
    """The head's weight and bias as a safetensors file."""
    tensors = {"weight": head.weight} | ({} if head.bias is None else {"bias": head.bias})
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def head_entry(head: Head, saved: bytes) -> dict[str, Any]:
    """The JSON entry that goes with :func:`head_bytes`: the head's scale and softcap, and the digest of the bytes."""
    return {"scale": head.scale, "softcap": head.softcap, "fingerprint": bytes_digest(saved)}


def head_of_bytes(saved: bytes, entry: Mapping[str, Any], device: torch.device) -> Head:
    """The head of which :func:`head_bytes` and :func:`head_entry` made these."""
    tensors = {name: tensor.to(device) for name, tensor in load(saved).items()}
    return Head(tensors["weight"], tensors.get("bias"), entry["scale"], entry["softcap"])
