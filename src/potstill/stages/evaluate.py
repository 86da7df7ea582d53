"""evaluate: teacher, student before, student after and control, side by side on the same held-out documents.

Makes `comparison.json` (rows with intervals, and paired differences), `scores/` (each model's sums by document) and
`passages.json`. Models that were scored before a stop are not scored again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset, load_from_disk
from torch import Tensor
from transformers import PreTrainedModel

from potstill import ready
from potstill.console import progress
from potstill.files import read_json, remove, write_json
from potstill.hardware import device
from potstill.judging import judge
from potstill.pipeline import Made, Work, student_name
from potstill.recipe.evaluate import PairDataset, PairFiles
from potstill.run import Step
from potstill.scoring.accuracy import accuracy
from potstill.scoring.accuracy import compare as compare_pairs
from potstill.scoring.held_out import METRICS, DocumentScores, Reference, Window, document_windows, score_documents
from potstill.scoring.minimal_pairs import PairScores, Reading, score_pairs
from potstill.scoring.pair_files import Subtask, pairs_from_dataset, pairs_from_files
from potstill.scoring.passages import token_view
from potstill.scoring.statistics import Paired, Row, Sums, bootstrap, paired
from potstill.stages.capture import provenance
from potstill.targets import TargetStore, make_codec
from potstill.teachers.captured import batch_keys, capture
from potstill.teachers.huggingface import Prepared
from potstill.teachers.live import LiveTeacher
from potstill.teachers.target import MixedTarget, TeacherTarget
from potstill.text.batching import Collator, pad_token_id

PASSAGES = 2
READABLE_TOKENS = range(60, 161)
"""Lengths of a passage that is shown whole in the report."""


@dataclass(frozen=True)
class _HeldOut:
    """The held-out text as models read it."""

    windows: list[Window]
    document_bytes: list[int]
    collate: Collator
    batch_size: int
    vocabulary: int | None
    """The number of ids that all models are compared on; None: all that their heads have."""

    def samples(self) -> list[dict[str, Any]]:
        return [{"input_ids": window.input_ids} for window in self.windows]

    def batches(self) -> Iterator[tuple[list[Window], dict[str, Tensor]]]:
        for at in range(0, len(self.windows), self.batch_size):
            rows = self.windows[at : at + self.batch_size]
            batch = self.collate([{"input_ids": row.input_ids} for row in rows])
            yield rows, {name: value.to(device()) for name, value in batch.items()}


def run(work: Work) -> Made:
    """Compare all models: on held-out text, or in what they answered to held-out questions."""
    return judge(work) if work.recipe.asks else _on_text(work)


def _on_text(work: Work) -> Made:
    """Score every model, compare them, and keep some passages to look at."""
    recipe = work.recipe
    teachers = ready.teachers(work)
    held_out = load_from_disk(work.run.path("corpus") / "held_out")
    held_out = held_out.select(range(min(len(held_out), recipe.evaluate.documents or len(held_out))))
    sizes = [len(text.encode()) for text in held_out["text"]]
    text = _HeldOut(
        document_windows(held_out["input_ids"], recipe.corpus.sequence_length),
        sizes,
        Collator(pad_token_id(ready.tokenizer(work))),
        recipe.evaluate.batch_size,
        ready.compared_vocabulary(work),
    )
    scores = _score_all(work, teachers, text)
    others = _others(work, scores)
    rows, pairs = compare(scores, others, recipe.evaluate.confidence, recipe.evaluate.resamples)
    made_of_pairs = []
    for name in recipe.evaluate.minimal_pairs:
        more_rows, more_pairs, details = _minimal_pairs(work, name)
        rows, pairs = rows + more_rows, pairs + more_pairs
        made_of_pairs.append(details)
    comparison = work.folder / "comparison.json"
    write_json(comparison, {"rows": [row.to_dict() for row in rows], "paired": [pair.to_dict() for pair in pairs]})
    passages = work.folder / "passages.json"
    first = _students(scores)[0]
    write_json(passages, _passages(work, teachers[0], held_out, scores[first][0], text.vocabulary))
    remove(work.folder / "teacher_states")
    tokens = int(scores["start"][0].tokens.sum())
    made = f"{sum(map(len, scores.values()))} models on {len(sizes):,} held-out documents"
    return Made(
        [comparison, passages, work.folder / "scores", *made_of_pairs],
        {"documents": len(sizes), "tokens": tokens, "made": made},
    )


def _loaders(work: Work) -> dict[str, list[Callable[[], PreTrainedModel]]]:
    """What loads each model under comparison, by the name that it has there; one a seed where it was trained."""
    recipe, teachers = work.recipe, ready.teachers(work)
    names = ["teacher"] if len(teachers) == 1 else [f"teacher {teacher.name}" for teacher in teachers]
    loaders: dict[str, list[Callable[[], PreTrainedModel]]] = {
        name: [teacher.model] for name, teacher in zip(names, teachers, strict=True)
    }
    loaders["start"] = [partial(ready.start, work)]
    steps = {student_name(name): [Step("distil", seed, name) for seed in recipe.seeds] for name in recipe.variants}
    if recipe.control is not None:
        steps["control"] = [Step("control", seed) for seed in recipe.seeds]
    return loaders | {name: [partial(ready.trained, work, step) for step in each] for name, each in steps.items()}


def _score_all(work: Work, teachers: list[Prepared], text: _HeldOut) -> dict[str, list[DocumentScores]]:
    reference = _Reference(work, teachers, text)
    return {
        name: [_scored(work, _file_name(name, n), load, text, reference) for n, load in enumerate(each)]
        for name, each in _loaders(work).items()
    }


def _file_name(model: str, seed: int) -> str:
    return model.replace(" ", "-") if model.startswith("teacher") else f"{model}-{seed}"


def _scored(
    work: Work, name: str, load: Callable[[], PreTrainedModel], text: _HeldOut, reference: "_Reference"
) -> DocumentScores:
    file = work.folder / "scores" / f"{name}.json"
    saved = read_json(file)
    if saved is not None:
        return DocumentScores.from_dict(saved)
    with progress(f"scoring {name}", len(text.windows), "sequences") as advance:
        batches, sizes = text.batches(), text.document_bytes
        scores = score_documents(load(), batches, sizes, reference.target, advance, text.vocabulary)
    file.parent.mkdir(exist_ok=True)
    write_json(file, scores.to_dict())
    return scores


def _minimal_pairs(work: Work, metric: str) -> tuple[list[Row], list[Paired], Path]:
    """Every model's accuracy on one set of minimal pairs, the student's differences, and the file with all subtasks."""
    settings, how = work.recipe.evaluate.minimal_pairs[metric], work.recipe.evaluate
    key, tokenizer = f"evaluate.minimal_pairs.{metric}", ready.tokenizer(work)
    subtasks = [subtask.first(settings.pairs) for subtask in _subtasks(settings, key)]
    reading = Reading.of(tokenizer, settings.start, settings.prefix_space)
    scores = {
        model: [
            _scored_pairs(work, metric, _file_name(model, n), load, subtasks, reading) for n, load in enumerate(each)
        ]
        for model, each in _loaders(work).items()
    }
    common: dict[str, Any] = {"ties": settings.ties, "confidence": how.confidence, "resamples": how.resamples}
    each = {model: accuracy(model, metric, found, **common) for model, found in scores.items()}
    pairs = {
        (student, model): compare_pairs(student, model, metric, scores[student], scores[model], **common)
        for student, model in _pairs(scores, _others(work, scores))
    }
    file = work.folder / "pairs" / f"{metric}.json"
    models = {model: found.to_dict() for model, found in each.items()}
    differences = {f"{student} - {model}": found.to_dict() for (student, model), found in pairs.items()}
    write_json(file, {"models": models, "paired": differences})
    return [found.overall for found in each.values()], [found.overall for found in pairs.values()], file


def _subtasks(settings: PairFiles | PairDataset, key: str) -> list[Subtask]:
    if isinstance(settings, PairFiles):
        return pairs_from_files(settings.path, f"{key}.path")
    return pairs_from_dataset(settings.dataset, f"{key}.dataset", split=settings.split, revision=settings.revision)


def _scored_pairs(
    work: Work, metric: str, name: str, load: Callable[[], PreTrainedModel], subtasks: list[Subtask], reading: Reading
) -> PairScores:
    file = work.folder / "pairs" / metric / f"{name}.json"
    saved = read_json(file)
    if saved is not None:
        return PairScores.from_dict(saved)
    sentences = sum(2 * len(subtask.good) for subtask in subtasks)
    with progress(f"{metric}: {name}", sentences, "sentences") as advance:
        scores = score_pairs(load(), ready.tokenizer(work), subtasks, reading, advance)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, scores.to_dict())
    return scores


class _Reference:
    """The teachers' last hidden states on the held-out text, computed once and read again for every model."""

    def __init__(self, work: Work, teachers: list[Prepared], text: _HeldOut) -> None:
        weights = [work.recipe.all_teachers[teacher.name].weight for teacher in teachers]
        self._weights = tuple(weight / sum(weights) for weight in weights)
        self._mix = work.recipe.distil.mix
        folder = work.folder / "teacher_states"
        self._sources = [_read_once(folder, teacher, text) for teacher in teachers]

    def target(self, batch: Mapping[str, Tensor]) -> TeacherTarget:
        targets = tuple(source(batch) for source in self._sources)
        return targets[0] if len(targets) == 1 else MixedTarget(targets, self._weights, self._mix)


def _read_once(folder: Path, teacher: Prepared, text: _HeldOut) -> Reference:
    live = LiveTeacher(teacher.model())
    if live.head is None:
        return live.target
    vocabulary, hidden_size = live.head.weight.shape
    bits = 16 if live.head.weight.dtype == torch.bfloat16 else 32
    codec = make_codec("hidden", vocabulary=vocabulary, hidden_size=hidden_size, bits=bits)
    origin, place = provenance(teacher), folder / teacher.name
    capture(place, live, codec, origin, text.samples(), text.collate, text.batch_size)
    store = TargetStore(place, expect=origin)
    return lambda batch: store.read(batch_keys(batch), device=device())


def compare(
    scores: dict[str, list[DocumentScores]], others: Sequence[str], confidence: float, resamples: int
) -> tuple[list[Row], list[Paired]]:
    """Every model's metrics, and each student's differences from others, where a metric was taken of them."""
    how: dict[str, Any] = {"confidence": confidence, "resamples": resamples}
    rows, pairs = [], []
    for metric in METRICS:
        transform: Literal["exp", "identity"] = "exp" if metric == "perplexity" else "identity"
        for name in scores:
            if not (name.startswith("teacher") and metric in ("kl_to_teacher", "agreement")):
                rows.append(bootstrap(name, metric, _sums(scores[name], metric), transform=transform, **how))
        for student, other in _pairs(scores, others):
            if not (other.startswith("teacher") and metric in ("kl_to_teacher", "agreement")):
                sums = _sums(scores[student], metric), _sums(scores[other], metric)
                pairs.append(paired(student, other, metric, *sums, transform=transform, **how))
    return rows, pairs


def _pairs(models: Iterable[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Each student with each of the others."""
    return [(student, other) for student in _students(models) for other in others]


def _students(models: Iterable[str]) -> list[str]:
    return [model for model in models if model.partition(" ")[0] == "student"]


def _others(work: Work, models: Iterable[str]) -> list[str]:
    """The models that students are compared with: their start, its control, and teachers trained on no more than it."""
    wanted = ("start", "control", "teacher") if work.recipe.pretrain else ("start", "control")
    return [model for kind in wanted for model in models if model.partition(" ")[0] == kind]


def _sums(seeds: list[DocumentScores], metric: str) -> Sums:
    each = [scores.sums(metric) for scores in seeds]
    if len(each) == 1:
        return each[0]
    return Sums(np.stack([sums.numerator for sums in each]), each[0].denominator)


def _passages(
    work: Work, teacher: Prepared, held_out: Dataset, scores: DocumentScores, vocabulary: int | None
) -> list[dict[str, Any]]:
    """The passages whose KL to the teacher is nearest to the median of all: neither the best nor the worst."""
    whole = work.recipe.corpus.sequence_length
    readable = [n for n, ids in enumerate(held_out["input_ids"]) if len(ids) in READABLE_TOKENS and len(ids) <= whole]
    kl = scores.kl / np.maximum(scores.tokens, 1)
    tokenizer = teacher.tokenizer()
    # A token that is only a part of a character cannot be shown as text; where there is other text, that is taken.
    broken = {n: any("\ufffd" in piece for piece in _pieces(tokenizer, held_out[n]["input_ids"])) for n in readable}
    typical = sorted(readable, key=lambda n: (broken[n], abs(kl[n] - np.median(kl))))[:PASSAGES]
    student = Step("distil", work.recipe.seeds[0], next(iter(work.recipe.variants)))
    models = (teacher.model(), ready.trained(work, student))
    return [
        {
            "title": f"held-out document {n}",
            "tokens": token_view(*models, tokenizer, held_out[n]["input_ids"], vocabulary),
        }
        for n in typical
    ]


def _pieces(tokenizer: Any, input_ids: list[int]) -> list[str]:
    return [tokenizer.decode([token]) for token in input_ids]
