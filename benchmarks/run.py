"""The settings of a run, and its messages while it runs."""

import sys
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Settings:
    """The settings that all sections get."""

    device: torch.device
    quick: bool
    rounds: int


def say(what: str) -> None:
    """Print to stderr what is being measured."""
    print(f"… {what}", file=sys.stderr, flush=True)
