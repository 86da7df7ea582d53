"""The model that is served: its facts, its head, its tokenizer, and its hidden states for the rows of requests."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX
from potstill.data.positions import PositionsCollator
from potstill.data.tokenizers import tokenizer_fingerprint
from potstill.device import device
from potstill.errors import UserError
from potstill.losses.teacher_target import HiddenTarget
from potstill.models.head_bytes import head_bytes, head_entry
from potstill.models.size import positions_of
from potstill.servers.hidden_states_format import (
    FORMAT,
    TOKENIZER_FILES,
    HeadFacts,
    HiddenRequest,
    HostFacts,
    TeacherFacts,
)
from potstill.teachers.live import LiveTeacher
from potstill.teachers.prepared import PreparedTeacher


@dataclass(frozen=True)
class HostedModel:
    """A teacher in the form in which a server gives it."""

    live: LiveTeacher
    facts: HostFacts
    head: bytes
    """The head's matrices (``models/head_bytes.py``)."""
    tokenizer: dict[str, str]
    """The text of each of the tokenizer's files, by name."""

    @classmethod
    def load(cls, teacher: PreparedTeacher, batch_tokens: int) -> "HostedModel":
        """Load a prepared teacher.

        Args:
            teacher: the teacher.
            batch_tokens: the most tokens that it reads at once, pads included. It reads one longest row all the same.

        Raises:
            UserError: it cannot be loaded, its head cannot be taken apart, or its tokenizer is not a fast one.
        """
        live = LiveTeacher(teacher.model())
        if live.head is None:
            raise UserError(
                f"{teacher.name} cannot be served, because its head cannot be taken apart from its other layers, and "
                "clients compute its logits with the head; serve a model of transformers whose head is one plain layer"
            )
        tokenizer, config = teacher.tokenizer(), live.model.config.get_text_config()
        head, longest = head_bytes(live.head), positions_of(config)
        facts = TeacherFacts(
            model=teacher.name,
            fingerprint=teacher.fingerprint,
            tokenizer=tokenizer_fingerprint(tokenizer),
            vocabulary=config.vocab_size,
            hidden_size=live.head.weight.shape[1],
            dtype=str(_states(live, [_PROBE]).dtype).removeprefix("torch."),
            longest=longest,
            head=HeadFacts(**head_entry(live.head, head)),
        )
        host = HostFacts(FORMAT, version("potstill"), max(batch_tokens, longest or 0), facts)
        return cls(live, host, head, _files_of(tokenizer, teacher.name))

    def read(self, requests: Sequence[HiddenRequest]) -> list[Float[Tensor, "N H"]]:
        """The hidden states that each request asks for, on the CPU. All rows are read in one forward."""
        return list(_states(self.live, requests).cpu().split([request.asked for request in requests]))


_PROBE = HiddenRequest(np.zeros(2, np.int32), np.array([2], np.int32), np.array([False, True]))


def _states(live: LiveTeacher, requests: Sequence[HiddenRequest]) -> Float[Tensor, "N H"]:
    batch = PositionsCollator(Collator(0))([row for request in requests for row in _samples(request)])
    target = live.target({name: value.to(device()) for name, value in batch.items()})
    assert isinstance(target, HiddenTarget), "its head is taken apart"
    return target.hidden


def _samples(request: HiddenRequest) -> list[dict[str, Any]]:
    labels = request.ids.copy()
    labels[~request.supervised] = IGNORE_INDEX
    starts = [0, *request.ends[:-1]]
    places = [slice(start, end) for start, end in zip(starts, request.ends, strict=True)]
    return [{"input_ids": request.ids[place], "labels": labels[place]} for place in places]


def _files_of(tokenizer: Any, name: str) -> dict[str, str]:
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(f"the tokenizer of {name} has no `tokenizer.json`, which clients need; save a fast tokenizer")
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = [file for file in map(Path(folder).joinpath, TOKENIZER_FILES) if file.is_file()]
        return {file.name: file.read_text(encoding="utf-8") for file in files}
