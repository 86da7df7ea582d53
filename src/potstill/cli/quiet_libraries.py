"""Quiet libraries: what they print that says nothing to a user."""

import logging
import os
import sys
import warnings
from collections.abc import Callable


def _without(words: str) -> Callable[[logging.LogRecord], bool]:
    return lambda record: words not in str(record.msg)


NOISE = {
    "torchao": _without("Failed to load"),
    "torch.utils._pytree": _without("is an Enum subclass"),
    "bitsandbytes.backends.cpu.ops": _without("Failed to load CPU"),
    "transformers.trainer_utils": _without("mtime may not be reliable"),
}
"""Lines that say nothing to a user, by their loggers: fast paths that are not built for this machine, notes between
libraries, and another way to sort checkpoints."""


def quiet_libraries() -> None:
    """Keep libraries silent about what says nothing to a user. Call this before they are imported."""
    # potstill reports their failures itself, and bars are for terminals only.
    for name, noise in NOISE.items():
        logging.getLogger(name).addFilter(noise)
    if not sys.warnoptions:
        # They warn each other of their next versions. `python -W default -m potstill` shows it.
        warnings.filterwarnings(
            "ignore", category=FutureWarning, module=r"(accelerate|peft|torch|torchao|transformers)\b"
        )
    os.environ.setdefault("DATASETS_VERBOSITY", "critical")
    if not sys.stdout.isatty():
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TQDM_DISABLE", "1")
