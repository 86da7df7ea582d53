"""Snapshot scores: the scores of snapshots on the items that select them and on the items that are reported.

A *meter* is one metric on one split. Scores lie in `snapshots/scores/` of the run, under a digest of the weights and of
all inputs of the meter. So equal weights are scored only once, and a stopped measurement continues.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import load_from_disk
from filelock import FileLock
from torch import Tensor
from transformers import PreTrainedModel

from potstill.console import progress, say
from potstill.data.collators import Collator, pad_token_id
from potstill.device import device, run_dtype
from potstill.errors import UserError
from potstill.evaluation.continuations import ResponseScorer, continuations_in_split, prompt_requests
from potstill.evaluation.conversations import held_out_turns
from potstill.evaluation.lm_eval_tasks import load_tasks
from potstill.evaluation.minimal_pairs import subtasks_in_split
from potstill.evaluation.selection_split import Split, in_split, splits_of
from potstill.files.atomic import digest, sha256
from potstill.files.named_files import named_path
from potstill.files.sealed import read_sealed, write_sealed
from potstill.generation.decoding import Decoding
from potstill.generation.generate import NamedModel, responses
from potstill.metrics.bootstrap import Sums
from potstill.metrics.conversations.turns import TURNS
from potstill.metrics.held_out_text import document_windows, score_answers
from potstill.metrics.lm_eval.items import as_sums as as_sums_of_task
from potstill.metrics.lm_eval.items import part, transform
from potstill.metrics.lm_eval.load import LoadedTask
from potstill.metrics.lm_eval.score import OF_ITEMS, promised, score_task
from potstill.metrics.minimal_pairs.accuracy import as_sums
from potstill.metrics.minimal_pairs.score import Reading, score_pairs
from potstill.models.folder import ADAPTER, fingerprint
from potstill.pipeline import artifacts, recipe_inputs, training_data
from potstill.pipeline.run_folder import Run
from potstill.pipeline.steps import held_out_questions_step
from potstill.pipeline.work import Work
from potstill.recipe import Recipe
from potstill.recipe.candidates import Candidate, teacher_candidates
from potstill.recipe.select import LOSS
from potstill.recipe.step import Step
from potstill.students.load_and_save import load_student

FOLDER, CURVES = "snapshots", "curves.json"


@dataclass(frozen=True)
class Figure:
    """The score of a model by one metric on one split, as sums over U items: [U] each."""

    metric: str
    split: Split
    better: Literal["lower", "higher"] | None
    numerator: list[float]
    denominator: list[float]
    transform: Literal["identity", "exp"] = "identity"

    @property
    def sums(self) -> Sums:
        """The sums as the bootstrap takes them."""
        return Sums(self.numerator, self.denominator)

    @classmethod
    def of(cls, metric: str, split: Split, better: Any, sums: Sums, transform: Any = "identity") -> "Figure":
        """A figure from arrays of sums."""
        numerator, denominator = np.asarray(sums.numerator), np.asarray(sums.denominator)
        return cls(metric, split, better, numerator.tolist(), denominator.tolist(), transform)


@dataclass(frozen=True)
class SnapshotMeter:
    """One measurement: a metric on a split, or a task with all of its metrics."""

    inputs_digest: str
    """A digest of all inputs of its figures, except the model."""
    score: Callable[[PreTrainedModel, str], list[Figure]]
    """Scores a model. The second argument is the model's name for messages."""


@dataclass(frozen=True)
class Weights:
    """A model by its content. Equal weights have one `fingerprint` in every folder."""

    fingerprint: str
    name: str
    """How messages name it."""
    load: Callable[[], PreTrainedModel]


def folder_weights(work: Work, folder: Path, name: str) -> Weights:
    """The weights in the folder of a snapshot or of the start.

    Args:
        work: the step.
        folder: a model's folder.
        name: how messages name it.
    """
    start, student = work.run.path("student") / "start", work.recipe.student
    start_fingerprint = fingerprint(start) if (folder / ADAPTER).is_file() else None
    parts = [fingerprint(folder), start_fingerprint, student.quantization, work.recipe.precision]
    dtype = run_dtype(work.recipe.precision)
    return Weights(digest(parts), name, lambda: load_student(folder, start, student, dtype))


def teacher_weights(work: Work) -> dict[Candidate, Weights]:
    """The weights of the teachers."""
    return {
        candidate: Weights(digest([one.fingerprint, one.dtype]), candidate.label, one.model)
        for candidate, one in zip(teacher_candidates(work.recipe), artifacts.teachers(work), strict=True)
    }


def score_weights(run: Run, weights: Weights, meters: Sequence[SnapshotMeter]) -> list[Figure]:
    """The scores of a model on each meter. The model is loaded only if a score is not known yet."""
    folder = run.folder / FOLDER
    (folder / "scores").mkdir(parents=True, exist_ok=True)
    found, model = list[Figure](), None
    for meter in meters:
        file = folder / "scores" / f"{digest([meter.inputs_digest, weights.fingerprint])}.json"
        # Two processes may need the same score at one time. One of them waits, and reads the other's result.
        with FileLock(folder / ".lock"):
            saved = read_sealed(file)
            if saved is None:
                model = model or weights.load()
                figures = [vars(figure) for figure in meter.score(model, weights.name)]
                saved = {"model": weights.name, "figures": figures}
                write_sealed(file, saved)
        found += [Figure(**figure) for figure in saved["figures"]]
    return found


def snapshot_meters(
    work: Work, trained: Candidate, splits: Sequence[Split] = ("selection", "reporting")
) -> list[SnapshotMeter]:
    """All meters of a training's snapshots on these splits. Text of other splits is not opened.

    lm-eval asks all items of a task, so a task has figures of both splits. The caller takes those of its own split.
    """
    recipe, found = work.recipe, list[SnapshotMeter]()
    for split in splits:
        if split == "reporting":
            found.append(_held_out_meter(work))
        elif recipe.corpus.validation is not None:
            found.append(_validation_meter(work, trained))
        if not recipe.asks:
            names = [name for name in recipe.evaluate.minimal_pairs if split in splits_of(recipe, name)]
            found += [_pairs_meter(work, name, split) for name in names]
            sets = [name for name in recipe.evaluate.continuations if split in splits_of(recipe, name)]
            found += [_continuations_meter(work, name, split) for name in sets]
    asked = load_tasks(recipe)
    return found + [_task_meter(work, one) for one in asked if set(splits) & set(splits_of(recipe, *one.shown))]


def check(recipe: Recipe) -> None:
    """Refuse a selection by a metric that no task has, before any step runs.

    Raises:
        UserError: the recipe has no such task, the task has no such metric, the metric is not made of single items, or
            lm-eval does not say which direction is better.
    """
    sets = recipe.evaluate.continuations
    chosen = [] if recipe.select is None else [metric for metric in recipe.select.by if "/" in metric]
    by = [metric for metric in chosen if metric.partition("/")[0] not in sets]
    if not by:
        return
    known = {metric: one for asked in load_tasks(recipe) for metric, one in promised(asked).items()}
    can = [metric for metric, one in known.items() if one.of_items and one.better is not None]
    for metric in by:
        plain = metric.partition(",")[0]
        if plain in can:
            continue
        if plain not in known:
            near = difflib.get_close_matches(metric, can, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(can)}"
            raise UserError(f"`select.by`: no task has the figure {metric!r}; {hint}")
        why = "is made of all items at once, and half of them cannot be chosen on"
        if known[plain].of_items:
            why = "has no direction: lm-eval does not say whether more of it is better"
        raise UserError(f"`select.by`: {metric!r} {why}; choose by another, {', '.join(can)}")


def _task_meter(work: Work, asked: LoadedTask) -> SnapshotMeter:
    """A meter of one task of lm-eval, with every metric that is made of single items."""
    splits, tokenizer = splits_of(work.recipe, *asked.shown), artifacts.tokenizer(work)
    batch_size = work.recipe.evaluate.batch_size

    def score(model: PreTrainedModel, name: str) -> list[Figure]:
        say(f"  {asked.name}: {name}")
        figures = []
        # lm-eval's standard errors are not needed: every interval here is our own.
        scores = score_task(model, tokenizer, asked, batch_size=batch_size, standard_errors=False).scores
        for metric, one in scores.items():
            for split in splits if one.aggregation in OF_ITEMS else ():
                own = part(one, in_split(split)) if len(splits) > 1 else one
                figures.append(Figure.of(metric, split, one.better, as_sums_of_task(own), transform(one)))
        return figures

    settings = next(task for task in work.recipe.evaluate.tasks if task.task == asked.name)
    files = {} if settings.path is None else _file_digests(settings.path)
    inputs = digest(["task", settings.model_dump(mode="json"), files, splits, batch_size, _tokenizer_digest(tokenizer)])
    return SnapshotMeter(inputs, score)


def _pairs_meter(work: Work, metric: str, split: Split) -> SnapshotMeter:
    settings, tokenizer = work.recipe.evaluate.minimal_pairs[metric], artifacts.tokenizer(work)
    subtasks = subtasks_in_split(work, metric, split)
    reading = Reading.of(tokenizer, settings.start, settings.prefix_space)
    sentences = sum(2 * len(subtask.good) for subtask in subtasks)

    def score(model: PreTrainedModel, name: str) -> list[Figure]:
        with progress(f"{metric}: {name}", sentences, "sentences") as advance:
            found = score_pairs(model, tokenizer, subtasks, reading, advance)
        return [Figure.of(metric, split, "higher", as_sums(found, settings.ties))]

    items = [[subtask.name, subtask.good, subtask.bad] for subtask in subtasks]
    return SnapshotMeter(
        digest(["pairs", split, items, vars(reading), settings.ties, _tokenizer_digest(tokenizer)]), score
    )


def _continuations_meter(work: Work, name: str, split: Split) -> SnapshotMeter:
    """A meter of one set of continuations, with every metric of the responses."""
    given, tokenizer, key = (
        work.recipe.evaluate.continuations[name],
        artifacts.tokenizer(work),
        f"evaluate.continuations.{name}",
    )
    continuations, batch_size = continuations_in_split(work, name, split), work.recipe.evaluate.batch_size
    requests, decoding = prompt_requests(given, continuations, tokenizer), Decoding(given.max_new_tokens, batch_size)

    def score(model: PreTrainedModel, who: str) -> list[Figure]:
        said = dict[str, str]()
        with progress(f"{name}: {who}", len(requests), "continuations") as advance:
            for batch in responses(NamedModel(model, tokenizer, who), requests, decoding, key=f"{key}.max_new_tokens"):
                said |= {one.id: one.response for one in batch}
                advance(len(batch))
        texts = [said[one.id] for one in continuations]
        scores = ResponseScorer(given, key, continuations, texts).scores(texts)
        one = np.ones(len(texts))
        return [Figure.of(f"{name}/{metric}", split, "higher", Sums(scores[metric], one)) for metric in given.metrics]

    items = [[one.prompt, one.keyword, one.reference] for one in continuations]
    settings = given.model_dump(mode="json", exclude={"random_pairs"})
    return SnapshotMeter(
        digest(["continuations", split, items, settings, batch_size, _tokenizer_digest(tokenizer)]), score
    )


def _validation_meter(work: Work, trained: Candidate) -> SnapshotMeter:
    """Cross-entropy on the validation split: that of the candidate's own sample set, where it has one."""
    recipe, made = work.recipe, Step("corpus")
    learned = training_data.for_candidate(work, trained)
    if recipe.uses_strategies:
        made = Step("strategies", name=recipe.sample_set_of_candidate(trained).name)
    assert learned.validation is not None
    content, rows = _output_digest(work.run, made, "validation"), list(learned.validation)
    return _loss_meter(work, "selection", content, rows, learned.collate, None)


def _held_out_meter(work: Work) -> SnapshotMeter:
    """Cross-entropy on the held-out text, questions or conversations, as `evaluate` measures it."""
    collate = Collator(pad_token_id(artifacts.tokenizer(work)))
    if work.recipe.asks:
        made = held_out_questions_step(work.recipe)
        rows = load_from_disk(work.run.path(made) / "samples").to_list()
        rows = sorted(rows, key=lambda row: row["id"])
        asked = [{name: row[name] for name in ("input_ids", "labels")} for row in rows]
        return _loss_meter(work, "reporting", _output_digest(work.run, made, "samples"), asked, collate, None)
    if work.recipe.chats:
        turns, settings = held_out_turns(work), recipe_inputs.held_out_turns(work.recipe)
        content = [_output_digest(work.run, Step("corpus"), "held_out"), work.recipe.evaluate.documents, settings]
        conversations = [int(units[0]) // len(TURNS) for units in turns.units]
        return _loss_meter(work, "reporting", digest(content), turns.samples, collate, conversations)
    held_out = load_from_disk(work.run.path("corpus") / "held_out")
    documents = held_out["input_ids"][: work.recipe.evaluate.documents]
    windows = document_windows(documents, work.recipe.corpus.sequence_length)
    content = [_output_digest(work.run, Step("corpus"), "held_out"), len(documents), work.recipe.corpus.sequence_length]
    cut = [{"input_ids": window.input_ids} for window in windows]
    return _loss_meter(work, "reporting", digest(content), cut, collate, [window.document for window in windows])


def _loss_meter(
    work: Work,
    split: Split,
    content: str,
    rows: Sequence[dict[str, Any]],
    collate: Callable[[Sequence[Any]], dict[str, Tensor]],
    units: Sequence[int] | None,
) -> SnapshotMeter:
    """Nats per token over rows. Each row is one item, unless `units` gives the item of each row."""
    vocabulary = None if work.recipe.asks else artifacts.compared_vocabulary(work)
    size = work.recipe.answers.batch_size if work.recipe.asks else work.recipe.evaluate.batch_size
    # Rows of similar length come together, so that batches have little padding.
    order = sorted(range(len(rows)), key=lambda at: -len(rows[at]["input_ids"]))
    of_row = np.arange(len(rows)) if units is None else np.asarray(units)

    def score(model: PreTrainedModel, name: str) -> list[Figure]:
        with progress(f"{split}: {name}", len(rows), "sequences") as advance:

            def batches() -> Iterator[Mapping[str, Tensor]]:
                for start in range(0, len(order), size):
                    batch = collate([rows[at] for at in order[start : start + size]])
                    yield {key: value.to(device()) for key, value in batch.items()}
                    advance(len(order[start : start + size]))

            nll, tokens = score_answers(model, batches(), vocabulary)
        unit = of_row[order]
        return [Figure.of(LOSS, split, "lower", Sums(np.bincount(unit, nll), np.bincount(unit, tokens)))]

    return SnapshotMeter(digest(["loss", split, content, vocabulary]), score)


def _output_digest(run: Run, step: Step, part: str) -> str:
    """A digest of one folder among a step's outputs."""
    manifest = run.manifest(step)
    assert manifest is not None, f"{step} is not done"
    return digest({name: made["sha256"] for name, made in manifest["outputs"].items() if name.startswith(f"{part}/")})


def _file_digests(path: str) -> dict[str, str]:
    return {str(file): sha256(file) for file in sorted(named_path(path).rglob("*")) if file.is_file()}


def _tokenizer_digest(tokenizer: Any) -> str:
    return digest(tokenizer.get_vocab())


def snapshot_name(trained: Candidate, step: int) -> str:
    """The name of a snapshot in messages."""
    return f"{trained}, step {step}"
