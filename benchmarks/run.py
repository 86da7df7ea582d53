"""How a run is made: its settings, and what it says while it goes on."""

import sys
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Settings:
    """What all sections must know."""

    device: torch.device
    quick: bool
    rounds: int


def say(what: str) -> None:
    """Say what is being measured, beside the tables."""
    print(f"… {what}", file=sys.stderr, flush=True)
