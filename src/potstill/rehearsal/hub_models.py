"""Hub models: the published configuration of each model on the hub that a shipped recipe names."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

TABLE = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True)
class HubModel:
    """A model on the hub, without its weights."""

    config: dict[str, Any]
    """The fields of its config.json."""
    tokenizer: str
    """The kind of its tokenizer: a key of :data:`potstill.rehearsal.tokenizers.KINDS`."""


def hub_model(name: str) -> HubModel | None:
    """The model of this name; None if the table does not have it."""
    return _table().get(name)


@cache
def _table() -> dict[str, HubModel]:
    return {name: HubModel(**fields) for name, fields in yaml.safe_load(TABLE.read_text(encoding="utf-8")).items()}
