"""Held-out text: how well a model predicts documents, and how close its predictions are to its teacher's."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from potstill.console import Advance
from potstill.data.labels import count_supervised_by_row
from potstill.data.packing import windows
from potstill.losses.teacher_target import TeacherTarget
from potstill.losses.token_scores import score_tokens
from potstill.metrics.bootstrap import Sums
from potstill.models.forward import forward
from potstill.models.head_extraction import head_of

TargetFunction = Callable[[Mapping[str, Tensor]], TeacherTarget]
"""Returns the teacher's target for a batch."""

METRICS = ("loss", "perplexity", "bits_per_byte", "kl_to_teacher", "agreement")


@dataclass(frozen=True)
class Window:
    """A part of a document: the number of the document, and the tokens of the part."""

    document: int
    input_ids: list[int]


@dataclass(frozen=True)
class DocumentScores:
    """Sums for each of U documents, over its predicted tokens: nats, nats of KL(teacher ‖ model), and matches with the
    teacher's likeliest token. Also the numbers of predicted tokens and of bytes of text."""

    nll: NDArray[np.float64]
    kl: NDArray[np.float64]
    agreement: NDArray[np.float64]
    tokens: NDArray[np.float64]
    bytes: NDArray[np.float64]

    def sums(self, metric: str) -> Sums:
        """Numerator and denominator of a metric for each document."""
        numerator = {"kl_to_teacher": self.kl, "agreement": self.agreement}.get(metric, self.nll)
        if metric == "bits_per_byte":
            return Sums(numerator / np.log(2), self.bytes)
        return Sums(numerator, self.tokens)

    def to_dict(self) -> dict[str, list[float]]:
        """For JSON, losslessly."""
        return {name: values.tolist() for name, values in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, list[float]]) -> "DocumentScores":
        """The inverse of :meth:`to_dict`."""
        return cls(**{name: np.asarray(values) for name, values in data.items()})


def document_windows(documents: Iterable[list[int]], sequence_length: int) -> list[Window]:
    """All documents in windows that overlap by one token; long windows first, so that a batch has similar lengths."""
    cut = [Window(n, ids) for n, tokens in enumerate(documents) for ids in windows(tokens, sequence_length)]
    return sorted((window for window in cut if len(window.input_ids) > 1), key=lambda window: -len(window.input_ids))


@torch.no_grad()
def score_documents(
    model: PreTrainedModel,
    batches: Iterable[tuple[list[Window], Mapping[str, Tensor]]],
    document_bytes: list[int],
    reference: TargetFunction,
    advance: Advance,
    vocabulary: int | None = None,
) -> DocumentScores:
    """Score a model on every document.

    Args:
        model: the model, in eval mode.
        batches: windows, and the batch [B, T] made from them, on the model's device.
        document_bytes: bytes of UTF-8 of each document.
        reference: returns the teacher's target for a batch.
        advance: called with the number of windows that are done.
        vocabulary: use only ids below this number; default: all ids of the heads.
    """
    sums = {name: np.zeros(len(document_bytes)) for name in ("nll", "kl", "agreement", "tokens")}
    head = head_of(model)
    for rows, batch in batches:
        states, labels = forward(model, head, batch)
        scores = score_tokens(states, head, labels, reference(batch), vocabulary=vocabulary)
        counts = count_supervised_by_row(batch).cpu().numpy()
        document = np.repeat([row.document for row in rows], counts)
        for name, found in (("nll", "nll"), ("kl", "forward_kl"), ("agreement", "agreement")):
            np.add.at(sums[name], document, scores[found].double().cpu().numpy())
        np.add.at(sums["tokens"], document, 1.0)
        advance(len(rows))
    return DocumentScores(**sums, bytes=np.asarray(document_bytes, float))


@torch.no_grad()
def score_answers(
    model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]], vocabulary: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The nats of each row's supervised tokens, and the number of these tokens: [U], [U].

    Args:
        model: the model, in eval mode.
        batches: `input_ids`, `labels` and `attention_mask`, all [B, T], on the model's device.
        vocabulary: use only ids below this number; default: all ids of the head.
    """
    head = head_of(model)
    nll: list[NDArray[np.float64]] = [np.zeros(0)]
    tokens: list[NDArray[np.float64]] = [np.zeros(0)]
    for batch in batches:
        states, labels = forward(model, head, batch)
        found = score_tokens(states, head, labels, vocabulary=vocabulary)["nll"].double().cpu().numpy()
        counts = count_supervised_by_row(batch).cpu().numpy()
        row = np.repeat(np.arange(len(counts)), counts)
        nll.append(np.bincount(row, found, minlength=len(counts)).astype(float))
        tokens.append(counts.astype(float))
    return np.concatenate(nll), np.concatenate(tokens)
