"""Minimal pairs: the accuracy of every model, and the differences between models."""

from typing import Any

from potstill.console import progress
from potstill.evaluation.candidate_models import CandidateModel, Measurement, Models, pairs_to_compare
from potstill.evaluation.measurement_cost import metered
from potstill.evaluation.selection_split import Split, split_of, splits_of
from potstill.files.atomic import write_json
from potstill.files.sealed import read_sealed, write_sealed
from potstill.metrics.bootstrap import Resampling
from potstill.metrics.minimal_pairs.accuracy import accuracy, compare
from potstill.metrics.minimal_pairs.read import Subtask, pairs_from_dataset, pairs_from_files, pairs_from_named_data
from potstill.metrics.minimal_pairs.score import PairScores, Reading, score_pairs
from potstill.pipeline import artifacts
from potstill.pipeline.work import Work
from potstill.recipe.evaluate import NamedPairs, PairDataset, PairFiles


def measure(work: Work, models: Models, metric: str) -> Measurement:
    """Measure every model on one set of minimal pairs, by its name in the recipe.

    `pairs/METRIC.json` has the figures of all its subtasks.
    """
    settings, how = work.recipe.evaluate.minimal_pairs[metric], work.recipe.evaluate
    tokenizer = artifacts.tokenizer(work)
    subtasks = subtasks_in_split(work, metric)
    reading = Reading.of(tokenizer, settings.start, settings.prefix_space)
    scores = {
        one.label: [_score_once(work, metric, seed, subtasks, reading) for seed in each] for one, each in models.items()
    }
    common: dict[str, Any] = {"ties": settings.ties, "resampling": Resampling(how.confidence, how.resamples)}
    each = {model: accuracy(model, metric, found, **common) for model, found in scores.items()}
    pairs = {
        (student, model): compare((student, model), metric, (scores[student], scores[model]), **common)
        for student, model in pairs_to_compare(work, models)
    }
    file = work.folder / "pairs" / f"{metric}.json"
    of_each = {model: found.to_dict() for model, found in each.items()}
    differences = {f"{student} - {model}": found.to_dict() for (student, model), found in pairs.items()}
    write_json(file, {"models": of_each, "paired": differences})
    return Measurement(
        [found.overall for found in each.values()], [found.overall for found in pairs.values()], outputs=[file]
    )


def subtasks_in_split(work: Work, metric: str, split: Split = "reporting") -> list[Subtask]:
    """The pairs of a split. All pairs are reported, unless the recipe selects snapshots by them."""
    settings, key = work.recipe.evaluate.minimal_pairs[metric], f"evaluate.minimal_pairs.{metric}"
    every = [subtask.first(settings.pairs) for subtask in _subtasks(settings, key)]
    return [_only_split(one, split) for one in every] if len(splits_of(work.recipe, metric)) > 1 else every


def _only_split(subtask: Subtask, split: Split) -> Subtask:
    pairs = zip(subtask.good, subtask.bad, strict=True)
    own = [pair for pair in pairs if split_of("\0".join(pair)) == split]
    return Subtask(subtask.name, tuple(good for good, _ in own), tuple(bad for _, bad in own))


def _subtasks(settings: PairFiles | NamedPairs | PairDataset, key: str) -> list[Subtask]:
    if isinstance(settings, PairFiles):
        return pairs_from_files(settings.path, f"{key}.path")
    if isinstance(settings, NamedPairs):
        return pairs_from_named_data(settings, key)
    return pairs_from_dataset(settings.dataset, f"{key}.dataset", split=settings.split, revision=settings.revision)


def _score_once(
    work: Work, metric: str, model: CandidateModel, subtasks: list[Subtask], reading: Reading
) -> PairScores:
    file = work.folder / "pairs" / metric / f"{model.candidate.folder}.json"
    saved = read_sealed(file)
    if saved is not None:
        return PairScores.from_dict(saved)
    sentences = sum(2 * len(subtask.good) for subtask in subtasks)
    with progress(f"{metric}: {model.candidate}", sentences, "sentences") as advance:
        loaded, tokenizer = model.load(), artifacts.tokenizer(work)
        read = (reading.encode(tokenizer, [*subtask.good, *subtask.bad]) for subtask in subtasks)
        tokens = sum(len(ids) for rows in read for ids in rows)
        with metered(work, f"minimal-pairs-{metric}", model) as tally:
            scores, tally.read = score_pairs(loaded, tokenizer, subtasks, reading, advance), tokens
    file.parent.mkdir(parents=True, exist_ok=True)
    write_sealed(file, scores.to_dict())
    return scores
