"""Hosted teachers: models that `potstill serve` runs on another machine, which sends their hidden states."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PretrainedConfig

from potstill.device import device as own_device
from potstill.errors import UserError
from potstill.losses.teacher_target import HiddenTarget
from potstill.models.forward import LayerStates
from potstill.models.head import Head
from potstill.servers.client import Client
from potstill.servers.hidden_states_format import HiddenRequest, TeacherFacts
from potstill.servers.potstill import PotstillApi
from potstill.teachers.served import AskedRow, rows_of


@dataclass(frozen=True, eq=False)
class HostedRows:
    """The rows of a batch that one request holds, and their places in the batch."""

    rows: list[AskedRow]
    places: list[int]

    def request(self) -> HiddenRequest:
        """The request for the hidden states that are wanted of the rows."""
        ids = [np.array(row.ids, np.int32) for row in self.rows]
        supervised = [np.isin(np.arange(len(row.ids)), np.array(row.places) + 1) for row in self.rows]
        return HiddenRequest.of_rows(ids, supervised)


class HostedTeacher:
    """A model behind `potstill serve` (:class:`teachers.beside.TeacherBeside`): a live teacher without its layers.

    Its targets are the live teacher's, bit for bit where the server reads the rows of a batch together. Documents that
    must not see each other are rows of their own.

    Args:
        api: the server.
        teacher: what is known of the teacher.
        head: its head.
        vocabulary: its targets cover the ids from 0 to this number; default: all ids of its head.

    Raises:
        UserError: the server cannot be reached, or has another teacher now.
    """

    gives_whole_distributions = True

    def __init__(self, api: PotstillApi, teacher: TeacherFacts, head: Head, vocabulary: int | None = None) -> None:
        self._api, self._teacher, self._whole_head = api, teacher, head
        self._most_tokens = api.check_unchanged(teacher).most_tokens
        self.vocabulary, self.config = vocabulary, hosted_config(teacher)
        self.to(own_device())

    @property
    def client(self) -> Client:
        """What sends the requests, and counts them."""
        return self._api.client

    @property
    def embeddings(self) -> int:
        """The number of ids that the teacher reads."""
        return self._teacher.vocabulary

    def to(self, device: torch.device) -> None:
        """Give targets on this device."""
        whole, kept = self._whole_head, self.vocabulary
        bias = None if whole.bias is None else whole.bias[:kept].to(device)
        self._device, self.head = device, replace(whole, weight=whole.weight[:kept].to(device), bias=bias)

    def shard(self, device: torch.device) -> None:
        """There is nothing to split: as :meth:`to`."""
        self.to(device)

    def check_documents(self) -> None:
        """Each document is a row of its own."""

    def target(self, batch: Mapping[str, Tensor], temperature: float = 1.0) -> HiddenTarget:
        """The teacher's targets for the batch's N supervised tokens, which are whole distributions at any temperature.

        Args:
            batch: `input_ids`, `labels`, and `attention_mask` or `position_ids` where rows have them, all [B, T].
            temperature: changes nothing.

        Raises:
            UserError: a row is longer than the teacher reads, or the server cannot answer it.
        """
        (found,) = self.targets([batch])
        return found

    def targets(self, batches: Iterable[Mapping[str, Tensor]]) -> Iterator[HiddenTarget]:
        """:meth:`target` of many batches, in their order. The server works on the next ones while one is used."""
        asked = ((number, part) for number, batch in enumerate(batches) for part in self._requests(batch))
        answers = self._api.client.in_order(lambda one: (*one, self._hidden(one[1])), asked)
        for _, found in groupby(answers, key=itemgetter(0)):
            yield self._joined([(part, hidden) for _, part, hidden in found])

    def read(
        self, batch: Mapping[str, Tensor], layers: Collection[int], temperature: float = 1.0
    ) -> tuple[HiddenTarget, LayerStates]:
        """:meth:`target`; the server shows no layers.

        Raises:
            UserError: layers are asked of it.
        """
        if layers:
            raise UserError("hidden_match needs the teacher's layers, and a server shows none; use a teacher beside it")
        return self.target(batch), {}

    def _requests(self, batch: Mapping[str, Tensor]) -> list[HostedRows]:
        """What is asked for a batch: at least one request, maybe of no rows."""
        rows = [row for row in rows_of(batch) if row.places]
        lengths, longest = [len(row.ids) for row in rows], self._teacher.longest
        if longest is not None and max(lengths, default=0) > longest:
            raise UserError(
                f"{self._api.client.connection.setting}: a sample has {max(lengths):,} tokens, and the teacher reads "
                f"{longest:,}; cut samples shorter (`corpus.sequence_length`)"
            )
        chosen = in_requests(lengths, self._most_tokens) if rows else [[]]
        return [HostedRows([rows[place] for place in places], places) for places in chosen]

    def _hidden(self, asked: HostedRows) -> Sequence[Float[Tensor, "N H"]]:
        """The hidden states of each row."""
        if not asked.rows:
            return [torch.zeros(0, self._teacher.hidden_size, dtype=getattr(torch, self._teacher.dtype))]
        return self._api.hidden(asked.request(), self._teacher).split([len(row.places) for row in asked.rows])

    def _joined(self, parts: Sequence[tuple[HostedRows, Sequence[Float[Tensor, "N H"]]]]) -> HiddenTarget:
        places = [place for asked, _ in parts for place in asked.places]
        hidden = [states for _, found in parts for states in found]
        ordered = [hidden[at] for at in np.argsort(places)] if places else hidden
        return HiddenTarget(torch.cat(ordered).to(self._device), self.head)


def hosted_config(teacher: TeacherFacts) -> PretrainedConfig:
    """What a configuration says of a model that is not here: its ids, its width, and the most tokens of a row."""
    return PretrainedConfig(
        vocab_size=teacher.vocabulary, hidden_size=teacher.hidden_size, max_position_embeddings=teacher.longest
    )


def in_requests(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """The places of rows that are asked for together: all in their order if they fit, or else those of like lengths.

    Args:
        lengths: the tokens of each row.
        most_tokens: the most tokens of a request, with the pads that make its rows equally long.
    """
    if len(lengths) * max(lengths) <= most_tokens:
        return [[*range(len(lengths))]]
    requests: list[list[int]] = [[]]
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if requests[-1] and (len(requests[-1]) + 1) * lengths[requests[-1][0]] > most_tokens:
            requests.append([])
        requests[-1].append(place)
    return requests
