"""Served teachers: models that run behind a server, which tells the likeliest tokens of each distribution."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from transformers import PretrainedConfig

from potstill.data.labels import IGNORE_INDEX, labels_of, starts_document
from potstill.device import device as own_device
from potstill.errors import UserError
from potstill.losses.teacher_target import SparseTarget
from potstill.models.forward import LayerStates
from potstill.models.head import Head
from potstill.servers.api import ScoredRow
from potstill.servers.client import Client
from potstill.servers.connect import Server
from potstill.servers.model import ServedModel, check_unchanged

ROWS_BETWEEN_PROBES = 256
SMALLEST_MASS = 2.0**-24
"""The least mass of a tail: a server computes in float32 at best, in which one minus a sum has this error."""


@dataclass(frozen=True)
class AskedRow:
    """A text that the server reads, and the predictions that are wanted of it."""

    ids: list[int]
    places: list[int]
    """Ascending places: place t predicts token t + 1."""


@dataclass(frozen=True, eq=False)
class KeptRow:
    """What is known of the N distributions of a text: K entries, and the log of the mass of all other tokens."""

    ids: Int[NDArray[np.int64], "N K"]
    log_probs: Float[NDArray[np.float64], "N K"]
    log_tail: Float[NDArray[np.float64], " N"]

    @classmethod
    def of_nothing(cls) -> Self:
        """No distribution."""
        return cls(np.zeros((0, 1), np.int64), np.zeros((0, 1)), np.zeros(0))

    def at(self, places: Sequence[int]) -> Self:
        """The distributions at some places."""
        return replace(self, ids=self.ids[places], log_probs=self.log_probs[places], log_tail=self.log_tail[places])


class ToldTeacher(ABC):
    """What teachers behind servers have in common: nothing of them is loaded here, and they show no layers.

    Args:
        model: what is known of the model.
        vocabulary: its targets cover the ids from 0 to this number; default: all ids of its tokenizer.
    """

    head: Head | None = None
    gives_whole_distributions = False

    def __init__(self, model: ServedModel, vocabulary: int | None) -> None:
        self.model, self.vocabulary, self.config = model, vocabulary, served_config(model)
        self.device = own_device()

    @property
    def embeddings(self) -> int:
        """The number of ids that the model's tokenizer has."""
        return self.model.vocabulary

    def to(self, device: torch.device) -> None:
        """Give targets on this device."""
        self.device = device

    def shard(self, device: torch.device) -> None:
        """There is nothing to split: as :meth:`to`."""
        self.to(device)

    def check_documents(self) -> None:  # noqa: B027 - nothing can be wrong here
        """Each document is asked for on its own."""

    @abstractmethod
    def target(self, batch: Mapping[str, Tensor], temperature: float = 1.0) -> SparseTarget:
        """The teacher's targets of a batch."""

    def read(
        self, batch: Mapping[str, Tensor], layers: Collection[int], temperature: float = 1.0
    ) -> tuple[SparseTarget, LayerStates]:
        """:meth:`target`; the server shows no layers.

        Raises:
            UserError: layers are asked of it.
        """
        if layers:
            raise UserError("hidden_match needs the teacher's layers, and a server shows none; use a teacher beside it")
        return self.target(batch, temperature), {}


class ServedTeacher(ToldTeacher):
    """A model behind a server (:class:`teachers.beside.TeacherBeside`).

    Each text is one request. Packed documents that must not see each other are requests of their own.

    Args:
        server: where the model is.
        model: what is known of it.
        vocabulary: its targets cover the ids from 0 to this number; default: all ids of its tokenizer.

    Raises:
        UserError: the server cannot be reached, or has another model now.
    """

    def __init__(self, server: Server, model: ServedModel, vocabulary: int | None = None) -> None:
        super().__init__(model, vocabulary)
        self.server, self.longest = server, server.api.facts().longest
        check_unchanged(server, model)

    @property
    def client(self) -> Client:
        """What sends the requests, and counts them."""
        return self.server.client

    def target(self, batch: Mapping[str, Tensor], temperature: float = 1.0) -> SparseTarget:
        """The k likeliest tokens at the batch's N supervised tokens, each row's own token, and the mass of the others.

        Args:
            batch: `input_ids`, `labels`, and `attention_mask` or `position_ids` where rows have them, all [B, T].
            temperature: that of the targets.

        Raises:
            UserError: a row is longer than the model reads, or the server cannot answer it.
        """
        (found,) = self._targets([batch], temperature)
        return found

    def targets(self, batches: Iterable[Mapping[str, Tensor]]) -> Iterator[SparseTarget]:
        """:meth:`target` of many batches, in their order. The server works on the next ones while one is used.

        A target is only given after the server has proven, later than it answered, that it still has the same model.

        Raises:
            UserError: as :meth:`target`, or the server's model has changed.
        """
        waiting: list[SparseTarget] = []
        rows = 0
        for found in self._targets(batches, 1.0):
            waiting.append(found)
            rows += len(found)
            if rows >= ROWS_BETWEEN_PROBES:
                check_unchanged(self.server, self.model)
                yield from waiting
                waiting, rows = [], 0
        if waiting:
            check_unchanged(self.server, self.model)
            yield from waiting

    def _targets(self, batches: Iterable[Mapping[str, Tensor]], temperature: float) -> Iterator[SparseTarget]:
        """The targets of batches. Their rows are in flight together, those of the next batches too."""
        asked = ((number, row) for number, batch in enumerate(batches) for row in rows_of(batch))
        answers = self.server.client.in_order(lambda one: (one[0], self._kept(one[1], temperature)), asked)
        for _, each in groupby(answers, key=itemgetter(0)):
            yield joined([kept for _, kept in each], temperature, self.device)

    def _kept(self, row: AskedRow, temperature: float) -> KeptRow:
        if not row.places:
            return KeptRow.of_nothing()
        if self.longest is not None and len(row.ids) > self.longest:
            here = self.server.client.connection
            raise UserError(
                f"{here.setting}: a sample has {len(row.ids):,} tokens, and the server reads {self.longest:,}; start "
                "it with a larger length (vLLM: `--max-model-len`), or cut samples shorter (`corpus.sequence_length`)"
            )
        k = min(self.server.given.top_k, self.model.vocabulary)
        scored = self.server.api.score(row.ids, k, temperature)
        labels = np.asarray(row.ids, np.int64)[1:]
        return kept_row(scored, labels, self.vocabulary or self.model.vocabulary).at(row.places)


def joined(rows: Sequence[KeptRow], temperature: float, device: torch.device) -> SparseTarget:
    """The distributions of several texts, one after another, as a target."""
    most = max(row.ids.shape[1] for row in rows)
    ids = [np.pad(row.ids, ((0, 0), (0, most - row.ids.shape[1]))) for row in rows]
    log_probs = [np.pad(row.log_probs, ((0, 0), (0, most - row.ids.shape[1])), constant_values=-np.inf) for row in rows]
    return SparseTarget(
        torch.from_numpy(np.concatenate(ids)).to(device),
        torch.from_numpy(np.concatenate(log_probs)).float().to(device),
        torch.from_numpy(np.concatenate([row.log_tail for row in rows])).float().to(device),
        temperature,
    )


def served_config(model: ServedModel) -> PretrainedConfig:
    """What a configuration says of a model that is not here: its ids, and the most tokens of a text."""
    return PretrainedConfig(vocab_size=model.vocabulary, max_position_embeddings=model.longest)


def rows_of(batch: Mapping[str, Tensor]) -> Iterator[AskedRow]:
    """The texts of a batch, in order, each without pads and up to its last label; at least one, maybe of nothing."""
    labels, ids = labels_of(batch).cpu().numpy(), batch["input_ids"].cpu().numpy()
    mask = batch.get("attention_mask")
    real = np.ones(ids.shape, bool) if mask is None else mask.bool().cpu().numpy()
    starts = starts_document(batch).cpu().numpy()
    # A text begins at a document's start, and at the first real token after pads.
    starts[:, 1:] |= real[:, 1:] & ~real[:, :-1]
    starts[:, 0] = True
    none = True
    for row in range(len(ids)):
        borders = [*np.flatnonzero(starts[row]).tolist(), ids.shape[1]]
        for first, last in pairwise(borders):
            taught = np.flatnonzero(labels[row, first + 1 : last] != IGNORE_INDEX)
            if len(taught) or (none and row == len(ids) - 1 and last == ids.shape[1]):
                none = False
                stop = first + int(taught[-1]) + 2 if len(taught) else first
                yield AskedRow(ids[row, first:stop].tolist(), taught.tolist())


def kept_row(scored: ScoredRow, labels: Int[NDArray[np.int64], " T-1"], vocabulary: int) -> KeptRow:
    """A server's predictions with the row's own next token as one more entry, and the mass of all other tokens.

    Ids from ``vocabulary`` on belong to the other tokens. Nothing is renormalised: the tail is one minus the sum.
    """
    log_probs = np.where(scored.ids < vocabulary, scored.log_probs, -np.inf)
    is_label = (scored.ids == labels[:, None]) & (log_probs > -np.inf)
    own = np.where(is_label.any(-1), -np.inf, scored.label_log_probs)
    ids = np.concatenate([scored.ids, labels[:, None]], 1)
    log_probs = np.concatenate([log_probs, own[:, None]], 1)
    rest = -np.expm1(np.minimum(np.logaddexp.reduce(log_probs, -1), 0.0))
    everything = (log_probs > -np.inf).sum(-1) >= vocabulary
    log_tail = np.where(everything, -np.inf, np.log(np.maximum(rest, SMALLEST_MASS)))
    return KeptRow(np.where(log_probs > -np.inf, ids, 0), log_probs, log_tail)
