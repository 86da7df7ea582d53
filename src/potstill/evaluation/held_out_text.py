"""Held-out text: each model's loss on it, its distance from the teachers, and passages for the report."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset, load_from_disk
from torch import Tensor

from potstill.console import progress
from potstill.data.collators import Collator, pad_token_id
from potstill.device import device
from potstill.evaluation.baselines import compared_vocabulary
from potstill.evaluation.candidate_models import CandidateModel, Measurement, Models, pairs_to_compare
from potstill.evaluation.measurement_cost import metered
from potstill.files.atomic import remove, write_json
from potstill.files.sealed import read_sealed, write_sealed
from potstill.losses.teacher_target import MixedTarget, TeacherTarget
from potstill.metrics.bootstrap import Resampling, Sums, bootstrap, paired
from potstill.metrics.held_out_text import (
    METRICS,
    DocumentScores,
    TargetFunction,
    Window,
    document_windows,
    score_documents,
)
from potstill.metrics.passages import piece, token_view
from potstill.metrics.results import Paired, Result
from potstill.pipeline import artifacts
from potstill.pipeline.work import Work
from potstill.recipe.candidates import Candidate, trained_candidates
from potstill.targets import StoreSpec, TargetStore, make_codec
from potstill.targets.content_keys import batch_keys
from potstill.teachers.capture import SampleBatches, capture
from potstill.teachers.live import LiveTeacher
from potstill.teachers.prepared import PreparedTeacher

PASSAGES = 2
READABLE_TOKENS = range(60, 161)
"""The lengths, in tokens, of passages that the report shows whole."""
STUDENT_METRICS = ("kl_to_teacher", "agreement")
"""Metrics that compare a model with the teachers. Teachers have none of them."""


@dataclass(frozen=True)
class _HeldOutBatches:
    """The held-out text as batches for models."""

    windows: list[Window]
    document_bytes: list[int]
    collate: Collator
    batch_size: int
    vocabulary: int | None
    """The number of ids on which all models are compared. None: all logits of their heads."""

    def samples(self) -> list[dict[str, Any]]:
        return [{"input_ids": window.input_ids} for window in self.windows]

    def batches(self) -> Iterator[tuple[list[Window], dict[str, Tensor]]]:
        for at in range(0, len(self.windows), self.batch_size):
            rows = self.windows[at : at + self.batch_size]
            batch = self.collate([{"input_ids": row.input_ids} for row in rows])
            yield rows, {name: value.to(device()) for name, value in batch.items()}


def measure(work: Work, models: Models) -> Measurement:
    """Score every model, compare the models, and save some passages for the report.

    Makes `scores/` (each model's sums by document) and `passages.json`.
    """
    recipe, teachers = work.recipe, artifacts.teachers(work)
    held_out = load_from_disk(work.run.path("corpus") / "held_out")
    held_out = held_out.select(range(min(len(held_out), recipe.evaluate.documents or len(held_out))))
    sizes = [len(text.encode()) for text in held_out["text"]]
    text = _HeldOutBatches(
        document_windows(held_out["input_ids"], recipe.corpus.sequence_length),
        sizes,
        Collator(pad_token_id(artifacts.tokenizer(work))),
        recipe.evaluate.batch_size,
        compared_vocabulary(work),
    )
    reference = _TeacherReference(work, teachers, text)
    scores = {one.label: [_score_once(work, seed, text, reference) for seed in each] for one, each in models.items()}
    pairs = pairs_to_compare(work, models)
    resampling = Resampling(recipe.evaluate.confidence, recipe.evaluate.resamples)
    rows, differences = compare(scores, pairs, resampling)
    passages = work.folder / "passages.json"
    write_json(passages, _passages(work, teachers[0], held_out, scores[pairs[0][0]][0], text.vocabulary))
    remove(work.folder / "teacher_states")
    tokens = int(scores["start"][0].tokens.sum())
    made = f"{sum(map(len, scores.values()))} models on {len(sizes):,} held-out documents"
    return Measurement(
        rows,
        differences,
        outputs=[passages, work.folder / "scores"],
        summary={"documents": len(sizes), "tokens": tokens, "made": made},
    )


def _score_once(
    work: Work, model: CandidateModel, text: _HeldOutBatches, reference: "_TeacherReference"
) -> DocumentScores:
    file = work.folder / "scores" / f"{model.candidate.folder}.json"
    saved = read_sealed(file)
    if saved is not None:
        return DocumentScores.from_dict(saved)
    with progress(f"scoring {model.candidate}", len(text.windows), "sequences") as advance:
        batches, sizes, loaded = text.batches(), text.document_bytes, model.load()
        with metered(work, "held-out-text", model) as tally:
            scores = score_documents(loaded, batches, sizes, reference.target, advance, text.vocabulary)
            tally.read = sum(len(window.input_ids) for window in text.windows)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_sealed(file, scores.to_dict())
    return scores


class _TeacherReference:
    """The teachers' last hidden states on the held-out text, computed once and read for every model."""

    def __init__(self, work: Work, teachers: list[PreparedTeacher], text: _HeldOutBatches) -> None:
        weights = [work.recipe.all_teachers[teacher.name].weight for teacher in teachers]
        self._weights = tuple(weight / sum(weights) for weight in weights)
        self._mix = work.recipe.distil.mix
        folder = work.folder / "teacher_states"
        self._sources = [_teacher_targets(folder, teacher, text) for teacher in teachers]

    def target(self, batch: Mapping[str, Tensor]) -> TeacherTarget:
        targets = tuple(source(batch) for source in self._sources)
        return targets[0] if len(targets) == 1 else MixedTarget(targets, self._weights, self._mix)


def _teacher_targets(folder: Path, teacher: PreparedTeacher, text: _HeldOutBatches) -> TargetFunction:
    live = LiveTeacher(teacher.model())
    if live.head is None:
        return live.target
    vocabulary, hidden_size = live.head.weight.shape
    bits = 16 if live.head.weight.dtype == torch.bfloat16 else 32
    codec = make_codec("hidden", vocabulary=vocabulary, hidden_size=hidden_size, bits=bits)
    origin, place = teacher.provenance(), folder / teacher.name
    capture(StoreSpec(place, codec, origin), live, SampleBatches(text.samples(), text.collate, text.batch_size))
    store = TargetStore(place, expect=origin)
    return lambda batch: store.read(batch_keys(batch), device=device())


def compare(
    scores: Mapping[str, list[DocumentScores]], pairs: Sequence[tuple[str, str]], resampling: Resampling
) -> tuple[list[Result], list[Paired]]:
    """The metrics of every model, and the differences within pairs of models that both have a metric."""
    rows, differences = [], []
    for metric in METRICS:
        transform: Literal["exp", "identity"] = "exp" if metric == "perplexity" else "identity"
        how: dict[str, Any] = {"transform": transform, "resampling": resampling}
        for name in scores:
            if _has_metric(name, metric):
                rows.append(bootstrap(name, metric, _sums(scores[name], metric), **how))
        for one, other in pairs:
            if _has_metric(other, metric):
                sums = _sums(scores[one], metric), _sums(scores[other], metric)
                differences.append(paired((one, other), metric, sums, **how))
    return rows, differences


def _has_metric(model: str, metric: str) -> bool:
    return not (Candidate.from_label(model).role == "teacher" and metric in STUDENT_METRICS)


def _sums(seeds: list[DocumentScores], metric: str) -> Sums:
    each = [scores.sums(metric) for scores in seeds]
    if len(each) == 1:
        return each[0]
    return Sums(np.stack([sums.numerator for sums in each]), each[0].denominator)


def _passages(
    work: Work, teacher: PreparedTeacher, held_out: Dataset, scores: DocumentScores, vocabulary: int | None
) -> list[dict[str, Any]]:
    """The passages whose KL to the teacher is nearest to the median of all documents."""
    whole = work.recipe.corpus.sequence_length
    readable = [n for n, ids in enumerate(held_out["input_ids"]) if len(ids) in READABLE_TOKENS and len(ids) <= whole]
    kl = scores.kl / np.maximum(scores.tokens, 1)
    tokenizer = teacher.tokenizer()
    # A token that is only a part of a character cannot be shown as text, so other documents come first.
    broken = {n: any("\ufffd" in piece(tokenizer, token) for token in held_out[n]["input_ids"]) for n in readable}
    typical = sorted(readable, key=lambda n: (broken[n], abs(kl[n] - np.median(kl))))[:PASSAGES]
    student = trained_candidates(work.recipe)[0]
    models = (teacher.model(), artifacts.trained_model(work, student))
    return [
        {
            "title": f"held-out document {n}",
            "tokens": token_view(*models, tokenizer, held_out[n]["input_ids"], vocabulary),
        }
        for n in typical
    ]
