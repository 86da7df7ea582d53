"""potstill distils large language models into small ones, and proves what was gained."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from potstill.losses.hidden_states import HiddenLoss
    from potstill.losses.loss import Loss
    from potstill.recipe.on_policy import OnPolicy
    from potstill.targets.store import TargetStore
    from potstill.training.trainer import DistilTrainer

__all__ = ["DistilTrainer", "HiddenLoss", "Loss", "OnPolicy", "TargetStore"]

_HOMES = {
    "DistilTrainer": "potstill.training.trainer",
    "HiddenLoss": "potstill.losses.hidden_states",
    "Loss": "potstill.losses.loss",
    "OnPolicy": "potstill.recipe.on_policy",
    "TargetStore": "potstill.targets.store",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: torch and transformers take seconds, and `potstill --help` needs neither.
    if name not in _HOMES:
        raise AttributeError(f"module 'potstill' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
