"""The teacher's head in a store of hidden states: one safetensors file and an entry in the header."""

from pathlib import Path
from typing import Any

import torch

from potstill.errors import UserError
from potstill.models.head import Head
from potstill.models.head_bytes import bytes_digest, head_of_bytes
from potstill.targets.durable_writes import write_atomically

NAME = "head.safetensors"


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
    if bytes_digest(saved) != entry["fingerprint"]:
        raise UserError(f"{path} is missing or damaged: delete the folder and run `potstill capture` again.")
    return head_of_bytes(saved, entry, device)
