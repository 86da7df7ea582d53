"""Document scores: every model's sums over each held-out document. Models that fit into memory read side by side.

The teachers read each batch once, and their logits are computed once, for all models of a group. If there is more than
one group, the teachers' last hidden states are kept on disk while the groups follow each other. Makes `scores/`.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from potstill.console import progress, say
from potstill.data.collators import Collate
from potstill.data.prompts.collator import teacher_batch
from potstill.device import device
from potstill.evaluation import baselines
from potstill.evaluation.candidate_models import CandidateModel, Models
from potstill.evaluation.measurement_cost import Tally, metered, metered_together
from potstill.evaluation.teacher_text import share_of_counterparts, teacher_scores
from potstill.files.atomic import remove
from potstill.files.sealed import read_sealed, write_sealed
from potstill.losses.teacher_target import HiddenTarget, SparseTarget
from potstill.losses.token_scores import WholeDistributions
from potstill.metrics.bootstrap import Sums
from potstill.metrics.held_out_text import (
    BatchScores,
    DocumentScores,
    SideBySide,
    TeacherOutputFunction,
    outputs_of,
)
from potstill.metrics.model_groups import BYTES_PER_WEIGHT, SHARE_OF_MEMORY, fit_beside_teachers, in_groups
from potstill.metrics.taught_parts import COMPARED, ItemScores, TaughtParts
from potstill.pipeline import artifacts
from potstill.pipeline.work import Work
from potstill.recipe.across_tokenizers import crossing_loss
from potstill.recipe.candidates import Candidate, teacher_candidates
from potstill.recipe.served import only_writes
from potstill.recipe.step import Step
from potstill.targets import StoreSpec, TargetStore, make_codec
from potstill.targets.content_keys import batch_keys
from potstill.teachers.capture import SampleBatches, capture
from potstill.teachers.prepared import PreparedTeacher
from potstill.training.memory import memory_of_device

MEASUREMENT = "held-out-text"
"""Its name among the costs."""
SECONDS_BETWEEN_SAVES = 30.0
"""A stopped group continues from its last save."""


@dataclass(frozen=True)
class HeldOutBatches:
    """The held-out text as batches for models."""

    samples: list[dict[str, Any]]
    """What models read, as the collator takes it; long samples first, so that a batch has similar lengths."""
    units: list[NDArray[np.int64]]
    """The number of the document of each predicted token of each sample."""
    document_bytes: list[int]
    collate: Collate
    batch_size: int
    vocabulary: int | None
    """The number of ids on which all models are compared. None: all logits of their heads."""
    parts: TaughtParts | None = None
    """The held-out items by their teachers. Each has equally many documents. None: all teachers teach every one."""

    def taught(self, documents: NDArray[np.int64]) -> list[tuple[int, ...]] | None:
        """The numbers of the teachers of tokens, by the numbers of their documents."""
        if self.parts is None:
            return None
        of_item = len(self.document_bytes) // len(self.parts.sets)
        return [self.parts.numbers[document // of_item] for document in documents.tolist()]

    def tokens(self) -> int:
        """The number of tokens that a model reads."""
        return sum(len(sample["input_ids"]) for sample in self.samples)

    def batches(self, first: int = 0) -> Iterator[tuple[list[NDArray[np.int64]], dict[str, Tensor]]]:
        """The samples from number `first` on, batch by batch, on this machine's device, each with its units."""
        for at in range(first, len(self.samples), self.batch_size):
            stop = at + self.batch_size
            yield self.units[at:stop], self.batch(self.samples[at:stop])

    def batch(self, samples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Samples as one batch on this machine's device."""
        return {name: value.to(device()) for name, value in self.collate(samples).items()}


class TeacherReaders:
    """How each teacher reads a batch. A teacher is loaded once, when it is first needed.

    Args:
        work: the step.
        text: the held-out text.
        keep_states: let each teacher read all of the text at first, and then read its states from disk. The teachers
            are not in memory beside other models then, unless they show no states.
    """

    def __init__(self, work: Work, text: HeldOutBatches, keep_states: bool) -> None:
        self._work, self._text, self._keep_states = work, text, keep_states
        self._states = work.folder / "teacher_states"

    @cached_property
    def by_name(self) -> dict[str, TeacherOutputFunction]:
        """By the folder of the teacher's candidate, in the order of the recipe; none of one that only writes, or that
        reads other tokens."""
        if crossing_loss(self._work.recipe) is not None:
            return {}
        candidates, teachers = teacher_candidates(self._work.recipe), artifacts.teachers(self._work)
        return {
            one.folder: self._reader(one, teacher)
            for one, teacher in zip(candidates, teachers, strict=True)
            if not only_writes(self._work.recipe, teacher.name)
        }

    def metrics(self, every: Sequence[str]) -> list[str]:
        """The metrics that can be measured: without a teacher that reads, none is compared with it."""
        return [metric for metric in every if self.by_name or metric.partition("/")[0] not in COMPARED]

    @cached_property
    def weights(self) -> tuple[float, ...]:
        """The teachers' shares in the ensemble."""
        weights = [teacher.weight for teacher in self._work.recipe.all_teachers.values()]
        return tuple(weight / sum(weights) for weight in weights)

    def close(self) -> None:
        """Remove the teachers' states from the disk."""
        remove(self._states)

    def _reader(self, candidate: Candidate, teacher: PreparedTeacher) -> TeacherOutputFunction:
        live, text = teacher.beside(), self._text
        if live.head is None or not self._keep_states:
            return lambda batch: cast(WholeDistributions | SparseTarget, live.target(teacher_batch(batch)))
        vocabulary, hidden_size = live.head.weight.shape
        bits = 16 if live.head.weight.dtype == torch.bfloat16 else 32
        codec = make_codec("hidden", vocabulary=vocabulary, hidden_size=hidden_size, bits=bits)
        origin, place = teacher.provenance(), self._states / teacher.name
        with metered(self._work, MEASUREMENT, CandidateModel(candidate, teacher.model)):
            capture(StoreSpec(place, codec, origin), live, SampleBatches(text.samples, text.collate, text.batch_size))
        store = TargetStore(place, expect=origin)
        return lambda batch: cast(HiddenTarget, store.read(batch_keys(batch), device=device()))


def fit_together(work: Work, models: Models) -> bool:
    """Whether all models fit into this machine's memory at one time, the teachers included. None is loaded."""
    beside = [model for each in models.values() for model in each if model.candidate.role != "teacher"]
    sizes = [_bytes(work, model) for model in beside]
    of_teachers = BYTES_PER_WEIGHT * sum(teacher.parameters() or 0 for teacher in artifacts.teachers(work))
    return fit_beside_teachers(sizes, of_teachers, _room())


def score_all(
    work: Work, models: Models, text: HeldOutBatches, teachers: TeacherReaders
) -> dict[str, list[DocumentScores]]:
    """The scores of every model, one for each seed, by its label. A model that was scored before a stop is read."""
    every = [model for each in models.values() for model in each]
    pending = [model for model in every if read_sealed(_file(work, model)) is None]
    of_teachers = [model for model in pending if model.candidate.role == "teacher"]
    beside = [model for model in pending if model.candidate.role != "teacher"]
    for group in in_groups([_bytes(work, model) for model in beside], _room()):
        _score_group(work, [*of_teachers, *beside[group]], text, teachers)
        of_teachers = []
    return {one.label: [_scores(work, model) for model in each] for one, each in models.items()}


def score_teachers_apart(work: Work, models: Models, texts: list[str]) -> dict[str, float]:
    """Score the teachers that read other tokens than the student, so that :func:`score_all` finds their scores.

    Returns:
        Of each, by its label, the share of its probability that lies on tokens of the student's vocabulary; without
        those behind servers that tell some tokens only.
    """
    shares = {}
    for model in (model for one, each in models.items() if one.role == "teacher" for model in each):
        file = _file(work, model)
        of_counterparts = file.with_suffix(".counterparts.json")
        found = read_sealed(of_counterparts)
        if found is None or read_sealed(file) is None:
            scores, share = teacher_scores(work, model, texts, MEASUREMENT)
            _save(work, model, scores)
            found = {"share": share}
            write_sealed(of_counterparts, found)
        if found["share"] is not None:
            shares[model.candidate.label] = found["share"]
            say(f"  {share_of_counterparts(model.candidate.label, found['share'])}")
    return shares


def sums_of(scores: Mapping[str, Sequence[ItemScores]], one_tokenizer: bool = True) -> Callable[[str, str], list[Sums]]:
    """Gives the sums of a model for a metric, one for each seed. Teachers have no distance from themselves.

    Without `one_tokenizer`, only what a teacher says of bytes is comparable with other models.
    """

    def sums(model: str, metric: str) -> list[Sums]:
        if Candidate.from_label(model).role == "teacher":
            name = metric.partition("/")[0]
            if name in COMPARED or (not one_tokenizer and name != "bits_per_byte"):
                return []
        return [one.sums(metric) for one in scores[model]]

    return sums


def _scores(work: Work, model: CandidateModel) -> DocumentScores:
    saved = read_sealed(_file(work, model))
    assert saved is not None, f"{model.candidate} is not scored"
    return DocumentScores.from_dict(saved)


def _room() -> int:
    return int(SHARE_OF_MEMORY * memory_of_device())


def _bytes(work: Work, model: CandidateModel) -> int:
    """The bytes of a model beside the teachers, or a few more. It is not loaded."""
    if model.candidate.role == "baseline":
        return BYTES_PER_WEIGHT * baselines.parameters(work)[model.candidate.label]
    made = work.run.manifest(Step("student"))
    assert made is not None, "the student is not made"
    return BYTES_PER_WEIGHT * int(made["summary"]["parameters"])


def _file(work: Work, model: CandidateModel) -> Path:
    return work.folder / "scores" / f"{model.candidate.folder}.json"


def _save(work: Work, model: CandidateModel, scores: DocumentScores) -> None:
    file = _file(work, model)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_sealed(file, scores.to_dict())


def _score_group(work: Work, group: Sequence[CandidateModel], text: HeldOutBatches, teachers: TeacherReaders) -> None:
    names, unfinished = [model.candidate.folder for model in group], work.folder / "unfinished_scores.json"
    if not names:
        return
    done, scores = _resumed(unfinished, names, text)
    readers = SideBySide(
        teachers.by_name,
        teachers.weights,
        work.recipe.distil.mix,
        {model.candidate.folder: outputs_of(model.load()) for model in group if model.candidate.role != "teacher"},
        text.vocabulary,
    )
    what = f"scoring {group[0].candidate}" if len(group) == 1 else f"scoring {len(group)} models side by side"
    with (
        progress(what, len(text.samples), "sequences", done) as advance,
        metered_together(work, MEASUREMENT, group) as tallies,
    ):
        for tally in tallies:
            tally.read = text.tokens()
        saved = time.monotonic()
        for units, batch in text.batches(done):
            documents = np.concatenate(units)
            nobody = None if teachers.by_name else [()] * len(documents)
            found = readers.read(batch, nobody or text.taught(documents))
            _add(found, documents, scores, dict(zip(names, tallies, strict=True)))
            advance(len(units))
            done += len(units)
            if time.monotonic() - saved >= SECONDS_BETWEEN_SAVES:
                saved = time.monotonic()
                write_sealed(unfinished, {"done": done, "sums": {name: scores[name].to_dict() for name in names}})
    for model, name in zip(group, names, strict=True):
        _save(work, model, scores[name])
    remove(unfinished)


def _resumed(unfinished: Path, names: Sequence[str], text: HeldOutBatches) -> tuple[int, dict[str, DocumentScores]]:
    """The number of samples that a stopped attempt at this group has scored, and its sums so far."""
    saved = read_sealed(unfinished)
    if saved is not None and list(saved["sums"]) == list(names):
        return saved["done"], {name: DocumentScores.from_dict(sums) for name, sums in saved["sums"].items()}
    return 0, {name: DocumentScores.zeros(text.document_bytes) for name in names}


def _add(
    found: BatchScores,
    documents: NDArray[np.int64],
    scores: Mapping[str, DocumentScores],
    tallies: Mapping[str, Tally],
) -> None:
    """Add the scores of a batch's tokens to the sums and to the time of each model that is scored."""
    for name, sums in scores.items():
        sums.add(documents, found.scores[name])
        tallies[name].seconds += found.seconds[name]
