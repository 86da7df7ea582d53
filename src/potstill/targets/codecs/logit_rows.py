"""A teacher's logits, a few rows at a time, so that a capture needs little memory beside the teacher."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from potstill.errors import UserError
from potstill.losses.cpu_buffers import give_back, take
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, TeacherTarget
from potstill.models.head import Head

LOGITS_PER_HEAD_CALL = 1 << 24
"""Logits computed per call of a head. So many rows that the matrix product outweighs reading the head's weights."""

LOGITS_PER_CHUNK = 1 << 19
"""Logits processed at a time on a CPU, which is five times faster while they stay in its cache."""


def apply_head(head: Head, hidden: Float[Tensor, "N H"]) -> Float[Tensor, "N V"]:
    """The head's logits for hidden states, computed as in the model's own forward."""
    logits = torch.nn.functional.linear(hidden.to(head.weight.dtype), head.weight, head.bias)
    if head.scale != 1.0:
        logits = logits * head.scale
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


def logit_rows(target: TeacherTarget, vocabulary: int) -> Iterator[tuple[slice, Float[Tensor, "n V"]]]:
    """Slices of N and their logits, in float32. The caller may overwrite the logits, and the next ones do.

    Raises:
        UserError: the target has no logits, or another vocabulary than the store.
    """
    if not isinstance(target, LogitsTarget | HiddenTarget):
        raise UserError(f"capture needs a teacher's logits or hidden states, and got a {type(target).__name__}.")
    whole = target.logits if isinstance(target, LogitsTarget) else target.hidden
    many, few = (
        max(1, limit // vocabulary)
        for limit in (LOGITS_PER_HEAD_CALL, LOGITS_PER_CHUNK if whole.device.type == "cpu" else LOGITS_PER_HEAD_CALL)
    )
    memory = take((min(few, len(whole)), vocabulary), torch.float32, whole.device)
    for start in range(0, len(whole), many):
        part = whole[start : start + many]
        logits = part if isinstance(target, LogitsTarget) else apply_head(target.head, part)
        if logits.shape[1] != vocabulary:
            raise UserError(
                f"the teacher answers with {logits.shape[1]} logits, the store was made for {vocabulary}: "
                f"capture with the vocabulary of its logits."
            )
        for first in range(0, len(logits), few):
            rows = logits[first : first + few]
            at = slice(start + first, start + first + len(rows))
            yield at, memory[: len(rows)].copy_(rows)
    give_back(memory)


def stack(records: list[UInt8[Tensor, "n record_bytes"]], record_bytes: int) -> UInt8[Tensor, "N record_bytes"]:
    """Join the records of successive rows; there may be no rows at all."""
    return torch.cat(records) if records else torch.empty(0, record_bytes, dtype=torch.uint8)


def check_finite(log_mass: Tensor) -> None:
    """Refuse NaN and infinite logits, which make the log-sum-exp of their row NaN or infinite.

    Raises:
        UserError: a row's value is not finite.
    """
    if not torch.isfinite(log_mass).all():
        raise UserError("the teacher answered with logits that are not numbers (NaN or infinite): run it in float32.")
