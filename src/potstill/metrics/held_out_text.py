"""Held-out text: how well a model predicts documents, and how close its predictions are to its teacher's."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from potstill.data.labels import count_supervised_by_row
from potstill.data.packing import windows
from potstill.data.positions import supervised_labels
from potstill.losses.logit_chunks import teacher_products
from potstill.losses.sparse_scores import score_beside_sparse, scores_of_sparse
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, MixedTarget, SparseTarget
from potstill.losses.token_scores import WholeDistributions, score_side_by_side, score_tokens
from potstill.metrics.bootstrap import Sums
from potstill.metrics.taught_parts import COMPARED
from potstill.models.forward import forward
from potstill.models.head_extraction import head_of

OutputFunction = Callable[[Mapping[str, Tensor]], WholeDistributions]
"""Returns a model's outputs at the supervised tokens of a batch."""
TeacherOutputFunction = Callable[[Mapping[str, Tensor]], WholeDistributions | SparseTarget]
"""The same of a teacher, which may tell only a part of its distributions."""

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
            return Sums(numerator / np.log(2), self.bytes, can_exceed_one=True)
        return Sums(numerator, self.tokens, can_exceed_one=metric != "agreement")

    def to_dict(self) -> dict[str, list[float]]:
        """For JSON, losslessly."""
        return {name: values.tolist() for name, values in asdict(self).items()}

    @classmethod
    def zeros(cls, document_bytes: Sequence[int]) -> "DocumentScores":
        """The sums over no token, to be added to.

        Args:
            document_bytes: bytes of UTF-8 of each document.
        """
        nll, kl, agreement, tokens = np.zeros((4, len(document_bytes)))
        return cls(nll, kl, agreement, tokens, np.asarray(document_bytes, float))

    def add(self, document: NDArray[np.int64], scores: Mapping[str, NDArray[np.float64]]) -> None:
        """Add the scores of N tokens, each of the document with its number: [N] each. Without a teacher to compare
        with, there is only the first sum."""
        for sums, name in ((self.nll, "nll"), (self.kl, "forward_kl"), (self.agreement, "agreement")):
            if name in scores:
                np.add.at(sums, document, scores[name])
        np.add.at(self.tokens, document, 1.0)

    @classmethod
    def from_dict(cls, data: dict[str, list[float]]) -> "DocumentScores":
        """The inverse of :meth:`to_dict`."""
        return cls(**{name: np.asarray(values) for name, values in data.items()})


@dataclass(frozen=True)
class TaughtScores:
    """Scores of documents of which some have no teacher: only the others are compared with theirs."""

    each: DocumentScores
    taught: NDArray[np.bool_]
    """Whether a document has a teacher."""

    @property
    def tokens(self) -> NDArray[np.float64]:
        """The numbers of predicted tokens."""
        return self.each.tokens

    def sums(self, metric: str) -> Sums:
        """Numerator and denominator of a metric for each document."""
        found = self.each.sums(metric)
        return replace(found, denominator=np.asarray(found.denominator) * self.taught) if metric in COMPARED else found


def document_windows(documents: Iterable[list[int]], sequence_length: int) -> list[Window]:
    """All documents in windows that overlap by one token; long windows first, so that a batch has similar lengths."""
    cut = [Window(n, ids) for n, tokens in enumerate(documents) for ids in windows(tokens, sequence_length)]
    return sorted((window for window in cut if len(window.input_ids) > 1), key=lambda window: -len(window.input_ids))


@dataclass(frozen=True)
class SideBySide:
    """Models that read the same batches side by side, and the teachers that each of them is compared with."""

    teachers: Mapping[str, TeacherOutputFunction]
    weights: tuple[float, ...]
    """The teachers' shares in an ensemble. They sum to one."""
    mix: Literal["probabilities", "logits"]
    models: Mapping[str, OutputFunction]
    """The models beside the teachers, by names of their own."""
    vocabulary: int | None = None
    """Use only ids below this number. None: all ids of the heads."""

    @torch.no_grad()
    def read(self, batch: Mapping[str, Tensor], taught: Sequence[tuple[int, ...]] | None = None) -> "BatchScores":
        """Score all models on a batch. Each teacher and each model reads it once.

        Args:
            batch: `input_ids`, `labels` and `attention_mask`, all [B, T], on the models' device.
            taught: the numbers of the teachers of each supervised token. None: all of them.
        """
        outputs: dict[str, WholeDistributions | SparseTarget] = {}
        seconds: dict[str, float] = {}
        began = time.perf_counter()
        for name, read in {**self.teachers, **self.models}.items():
            outputs[name] = read(batch)
            seconds[name], began = _seconds_since(began)
        labels = supervised_labels(batch)
        every = tuple(range(len(self.teachers)))
        found = self._scores(outputs, labels, every) if taught is None else self._by_group(outputs, labels, taught)
        scores = {
            name: {what: values.double().cpu().numpy() for what, values in each.items()}
            for name, each in zip(outputs, found, strict=True)
        }
        together, _ = _seconds_since(began)
        return BatchScores(scores, {name: own + together / len(outputs) for name, own in seconds.items()})

    def _scores(
        self, outputs: Mapping[str, WholeDistributions | SparseTarget], labels: Tensor, teachers: tuple[int, ...]
    ) -> list[dict[str, Tensor]]:
        members, shares = tuple(outputs[name] for name in self.teachers), self.weights
        if len(teachers) < len(members):
            members = tuple(members[number] for number in teachers)
            total = sum(shares[number] for number in teachers)
            shares = tuple(shares[number] / total for number in teachers)
        target = None if not members else members[0] if len(members) == 1 else MixedTarget(members, shares, self.mix)
        given = list(outputs.values())
        if target is not None and any(isinstance(one, SparseTarget) for one in members):
            return score_beside_sparse(given, labels, target, vocabulary=self.vocabulary)
        whole = [one for one in given if not isinstance(one, SparseTarget)]
        scored = iter(score_side_by_side(whole, labels, cast(Any, target), vocabulary=self.vocabulary))
        return [scores_of_sparse(one, labels) if isinstance(one, SparseTarget) else next(scored) for one in given]

    def _by_group(
        self,
        outputs: Mapping[str, WholeDistributions | SparseTarget],
        labels: Tensor,
        taught: Sequence[tuple[int, ...]],
    ) -> list[dict[str, Tensor]]:
        """The scores of tokens that do not all have the same teachers; 0 where there is no teacher to compare with."""
        assert len(taught) == len(labels), (len(taught), len(labels))
        nothing = torch.zeros(len(labels), dtype=torch.float64, device=labels.device)
        found = [{name: nothing.clone() for name in ("nll", "forward_kl", "agreement")} for _ in outputs]
        for teachers in dict.fromkeys(taught):
            places = torch.tensor([place for place, own in enumerate(taught) if own == teachers], device=labels.device)
            own = {name: _at(one, places) for name, one in outputs.items()}
            for whole, part in zip(found, self._scores(own, labels[places], teachers), strict=True):
                for name, values in part.items():
                    whole[name][places] = values.double()
        return found


@dataclass(frozen=True)
class BatchScores:
    """The scores of a batch's N supervised tokens, [N] each, by model and name; and the seconds of each model.

    The heads and the comparison are computed for all models together: each has an equal share of their time.
    """

    scores: Mapping[str, Mapping[str, NDArray[np.float64]]]
    seconds: Mapping[str, float]


def _at(outputs: WholeDistributions | SparseTarget, places: Tensor) -> WholeDistributions | SparseTarget:
    """A model's outputs at some of the tokens."""
    if isinstance(outputs, SparseTarget):
        return outputs.at(places)
    if isinstance(outputs, LogitsTarget):
        return LogitsTarget(outputs.logits[places])
    return HiddenTarget(outputs.hidden[places], outputs.head)


def _seconds_since(began: float) -> tuple[float, float]:
    """The seconds of the work that began then, with that of the accelerator; and the moment now."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    now = time.perf_counter()
    return now - began, now


def outputs_of(model: PreTrainedModel) -> OutputFunction:
    """How a model, in eval mode, reads a batch."""
    head = head_of(model)

    def read(batch: Mapping[str, Tensor]) -> WholeDistributions:
        states, _ = forward(model, head, batch)
        return LogitsTarget(states) if head is None else HiddenTarget(states, head)

    return read


def log_probs(outputs: WholeDistributions, vocabulary: int | None = None) -> Float[Tensor, "N V"]:
    """The log-probabilities of a model at N supervised tokens, over the ids below `vocabulary`."""
    width = outputs.logits.shape[1] if isinstance(outputs, LogitsTarget) else len(outputs.head.weight)
    (source,) = teacher_products(outputs, vocabulary or width)
    found = source.logits(0, len(outputs), len(outputs)).finished().log_softmax(-1)
    source.close()
    return found


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

    def nll(batch: Mapping[str, Tensor]) -> Tensor:
        states, labels = forward(model, head, batch)
        return score_tokens(states, head, labels, vocabulary=vocabulary)["nll"]

    return score_answers_of(nll, batches)


def score_answers_of(
    read: Callable[[Mapping[str, Tensor]], Float[Tensor, "N"]], batches: Iterable[Mapping[str, Tensor]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """As :func:`score_answers`, of any model: ``read`` gives the nats of a batch's N supervised tokens."""
    nll: list[NDArray[np.float64]] = [np.zeros(0)]
    tokens: list[NDArray[np.float64]] = [np.zeros(0)]
    for batch in batches:
        found = read(batch).double().cpu().numpy()
        counts = count_supervised_by_row(batch).cpu().numpy()
        row = np.repeat(np.arange(len(counts)), counts)
        nll.append(np.bincount(row, found, minlength=len(counts)).astype(float))
        tokens.append(counts.astype(float))
    return np.concatenate(nll), np.concatenate(tokens)
