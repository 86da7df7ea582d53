"""Written teachers: models that told the distributions of what they wrote, and of no other text. A log keeps them."""

import base64
import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from potstill.files.jsonl_log import JsonlLog, read_jsonl
from potstill.losses.teacher_target import SparseTarget
from potstill.servers.api import ScoredRow, WrittenText
from potstill.servers.model import ServedModel
from potstill.teachers.served import AskedRow, KeptRow, ToldTeacher, joined, kept_row, rows_of

WRITTEN = "written.jsonl"


class WrittenLog:
    """Keeps what a server told of the answers that it wrote, each by the tokens of its prompt and its own.

    Args:
        file: the log.
        ends: the tokens that end an answer.
    """

    def __init__(self, file: Path, ends: Collection[int]) -> None:
        self.file, self._ends, self._log = file, ends, JsonlLog(file)

    def keep(self, prompt: Sequence[int], text: WrittenText) -> None:
        """Keep an answer, unless it cannot be learned: it has a fault, or no end."""
        if text.fault is None and text.ids[-1] in self._ends:
            self._log.append([{"prompt": _digest(prompt), "ids": [*text.ids]} | _encoded(text.scored)])


class WrittenTeacher(ToldTeacher):
    """What a server told of its answers, as a teacher (:class:`teachers.beside.TeacherBeside`) that is captured.

    Nothing is known of a token that the server did not write. The target of such a token is one category with all
    of the mass, from which every student has the distance 0.

    Args:
        log: what :class:`WrittenLog` kept.
        model: what is known of the model.
        ends: the tokens that end an answer.
        vocabulary: its targets cover the ids from 0 to this number; default: all ids of its tokenizer.
    """

    def __init__(self, log: Path, model: ServedModel, ends: Collection[int], vocabulary: int | None = None) -> None:
        super().__init__(model, vocabulary)
        self._ends = ends
        self._answers: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for row in read_jsonl(log):
            self._answers[row["prompt"]].append(row)

    def told(self, batch: Mapping[str, Tensor]) -> int:
        """The number of the batch's supervised tokens that the server wrote."""
        return sum(len(known) for row in rows_of(batch) for _, known, _ in self._spans(row))

    def target(self, batch: Mapping[str, Tensor], temperature: float = 1.0) -> SparseTarget:
        """The likeliest tokens at the batch's N supervised tokens, each row's own token, and the mass of the others.

        Args:
            batch: `input_ids`, `labels`, and `attention_mask` or `position_ids` where rows have them, all [B, T].
            temperature: 1.
        """
        assert temperature == 1, "the recipe refuses other temperatures"
        return joined([self._kept(row) for row in rows_of(batch)], temperature, self.device)

    def targets(self, batches: Iterable[Mapping[str, Tensor]]) -> Iterator[SparseTarget]:
        """:meth:`target` of many batches, in their order."""
        return map(self.target, batches)

    def _kept(self, row: AskedRow) -> KeptRow:
        if not row.places:
            return KeptRow.of_nothing()
        spans = [*self._spans(row)]
        labels = np.array([row.ids[place + 1] for place in row.places], np.int64)
        most = max((scored.ids.shape[1] for _, _, scored in spans), default=1)
        ids, log_probs = np.zeros((len(labels), most), np.int64), np.full((len(labels), most), -np.inf)
        own = np.full(len(labels), -np.inf)
        for first, known, scored in spans:
            at, width = slice(first, first + len(known)), scored.ids.shape[1]
            ids[at, :width], log_probs[at, :width] = scored.ids[: len(known)], scored.log_probs[: len(known)]
            # An answer may have ended with another end token than samples have.
            own[at] = np.where(labels[at] == known, scored.label_log_probs[: len(known)], -np.inf)
        return kept_row(ScoredRow(ids, log_probs, own), labels, self.vocabulary or self.model.vocabulary)

    def _spans(self, row: AskedRow) -> Iterator[tuple[int, Int[NDArray[np.int64], " N"], ScoredRow]]:
        """The parts of a row that the server wrote: the number of the first supervised token, the answer's tokens that
        the row has, and what the server told of them."""
        places = np.array(row.places, np.int64)
        starts = [0, *(np.flatnonzero(np.diff(places) > 1) + 1).tolist()] if len(places) else []
        for first, stop in zip(starts, [*starts[1:], len(places)], strict=True):
            begin = row.places[first] + 1
            found = self._answer(row.ids[:begin], row.ids[begin : begin + stop - first])
            if found is not None:
                known = np.array(found["ids"], np.int64)[: stop - first]
                yield first, known, _decoded(found)

    def _answer(self, prompt: Sequence[int], text: Sequence[int]) -> Mapping[str, Any] | None:
        """The answer to a prompt that a text begins with, or that begins with the text, if the text is cut."""
        for one in self._answers.get(_digest(prompt), ()):
            words = one["ids"][:-1]
            ends = len(text) <= len(words) or text[len(words)] in self._ends
            if ends and list(text[: len(words)]) == words[: len(text)]:
                return one
        return None


def _digest(prompt: Sequence[int]) -> str:
    return hashlib.blake2b(np.array(prompt, "<u4").tobytes(), digest_size=16).hexdigest()


def _encoded(scored: ScoredRow) -> dict[str, Any]:
    """The predictions of N tokens: bytes of [N, K] ids, [N, K] log-probabilities and [N] of the text's own tokens."""
    parts = (scored.ids.astype("<u4"), scored.log_probs.astype("<f4"), scored.label_log_probs.astype("<f4"))
    return {"k": scored.ids.shape[1], "told": base64.b64encode(b"".join(part.tobytes() for part in parts)).decode()}


def _decoded(row: Mapping[str, Any]) -> ScoredRow:
    k, found = row["k"], np.frombuffer(base64.b64decode(row["told"]), "<u4")
    ids, log_probs, own = np.split(found, [len(row["ids"]) * k, 2 * len(row["ids"]) * k])
    values = log_probs.view("<f4").astype(np.float64).reshape(-1, k)
    return ScoredRow(ids.astype(np.int64).reshape(-1, k), values, own.view("<f4").astype(np.float64))
