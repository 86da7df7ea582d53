"""Standard tasks: lm-eval asks every model once, and the models are compared on the same items."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from potstill.console import say
from potstill.errors import UserError
from potstill.evaluation.candidate_models import CandidateModel, Measurement, Models
from potstill.evaluation.measurement_cost import metered
from potstill.evaluation.selection_split import in_split, splits_of
from potstill.files.sealed import read_sealed, write_sealed
from potstill.metrics.bootstrap import Resampling
from potstill.metrics.lm_eval.compare import compare, is_share
from potstill.metrics.lm_eval.items import Wanted, part
from potstill.metrics.lm_eval.load import LoadedTask, load_task
from potstill.metrics.lm_eval.score import OF_ITEMS, TaskScores, score_task
from potstill.metrics.results import Paired, Result
from potstill.pipeline import artifacts
from potstill.pipeline.work import Work
from potstill.recipe import Recipe

FAMILY = "tasks"
"""The family of differences on all tasks, for Holm's correction: at 0.05, one in twenty would seem real by chance."""


def check(recipe: Recipe) -> None:
    """Load every task with its data, before any step runs.

    Raises:
        UserError: a task does not exist, is not valid, or has no data here; or two tasks have the same metric.
    """
    load_tasks(recipe)


def measure(work: Work, models: Models) -> Measurement:
    """Ask every model every task. `tasks/TASK/MODEL.json` keeps the contribution of each item.

    `comparison.json` gets an entry `tasks`: how the report shows each metric (`metrics`), and lm-eval's own figures
    and standard errors, one for each seed of a model (`lm_eval`).
    """
    rows: list[Result] = []
    pairs: list[Paired] = []
    shown: list[dict[str, Any]] = []
    theirs: dict[str, dict[str, list[dict[str, Any]]]] = {one.label: {} for one in models}
    asked = load_tasks(work.recipe)
    found = [
        {candidate.label: [_score_once(work, one, seed) for seed in each] for candidate, each in models.items()}
        for one in asked
    ]
    between, how = _pairs(models), work.recipe.evaluate
    resampling = Resampling(how.confidence, how.resamples)
    for one, scores in zip(asked, found, strict=True):
        more_rows, more_pairs = compare(_reported(work, one, scores), between, resampling)
        rows, pairs = rows + more_rows, pairs + more_pairs
        first, sure = next(iter(scores.values()))[0], {row.metric for row in more_rows}
        for metric, score in first.scores.items():
            if metric in sure:
                shown.append(_report_metric(one, metric, score.better, is_share(scores, metric)))
            else:
                say(f"  {metric}: it has no interval, so it is not compared; lm-eval's own figure is recorded")
        for model, seeds in scores.items():
            for metric in {**first.scores, **first.parts}:
                each = [{**seed.scores, **seed.parts}[metric] for seed in seeds]
                theirs[model][metric] = [{"value": own.value, "stderr": own.stderr} for own in each]
    return Measurement(
        rows,
        pairs,
        outputs=[work.folder / "tasks"],
        summary={"tasks": len(asked)},
        more={"tasks": {"metrics": shown, "lm_eval": theirs}},
    )


def load_tasks(recipe: Recipe) -> list[LoadedTask]:
    """Every task that the recipe names, with its data."""
    asked, owner = [], dict[str, str]()
    for number, task in enumerate(recipe.evaluate.tasks):
        key = f"evaluate.tasks.{number}"
        one = load_task(task.task, key, path=task.path, num_fewshot=task.num_fewshot, limit=task.limit)
        for name in one.shown:
            if owner.setdefault(name, task.task) != task.task:
                raise UserError(f"`{key}`: {name!r} is asked already by {owner[name]!r}; remove one of the two")
        asked.append(one)
    return asked


def _score_once(work: Work, asked: LoadedTask, model: CandidateModel) -> TaskScores:
    file = work.folder / "tasks" / quote(asked.name, safe="") / f"{model.candidate.folder}.json"
    saved = read_sealed(file)
    if saved is not None:
        return TaskScores.from_dict(saved)
    say(f"  {asked.name}: {model.candidate}")
    tokenizer = artifacts.tokenizer(work) if model.tokenizer is None else model.tokenizer()
    loaded, folder = model.load(), quote(asked.name, safe="")
    with metered(work, folder, model) as tally:
        scores = score_task(loaded, tokenizer, asked, batch_size=work.recipe.evaluate.batch_size)
        tally.read, tally.written = scores.read, scores.written
    file.parent.mkdir(parents=True, exist_ok=True)
    write_sealed(file, scores.to_dict())
    return scores


def _reported(
    work: Work, asked: LoadedTask, models: Mapping[str, Sequence[TaskScores]]
) -> Mapping[str, Sequence[TaskScores]]:
    """The scores to report: of all items, or of the half that did not select snapshots."""
    if len(splits_of(work.recipe, *asked.shown)) == 1:
        return models
    wanted = in_split("reporting")
    return {model: [_only_items(seed, wanted) for seed in seeds] for model, seeds in models.items()}


def _only_items(whole: TaskScores, wanted: Wanted) -> TaskScores:
    # A metric that is computed from all items at once (F1, BLEU) has no value for half of them.
    scores = {name: part(one, wanted) for name, one in whole.scores.items() if one.aggregation in OF_ITEMS}
    return replace(whole, scores=scores)


def _pairs(models: Models) -> list[tuple[str, str]]:
    """Each student with its start and its control, and then with every other model that is no student."""
    students = [one for one in models if one.role == "student"]
    others = sorted(
        (one for one in models if one.role != "student"), key=lambda one: one.role not in ("start", "control")
    )
    return [(student.label, other.label) for student in students for other in others]


def _report_metric(asked: LoadedTask, metric: str, better: str | None, percent: bool) -> dict[str, Any]:
    """The fields of the report's `Metric`."""
    shots = _shots(asked, metric.partition("/")[0])
    unit = f"lm-eval, {shots}-shot" if shots is not None else "lm-eval"
    return {
        "name": metric,
        "label": metric,
        "unit": unit if asked.limit is None else f"{unit}, first {asked.limit:,} items",
        "better": better,
        "percent": percent,
        "family": FAMILY,
    }


def _shots(asked: LoadedTask, name: str) -> int | None:
    """The number of solved examples before each item; None if the tasks of a group differ."""
    group = asked.loaded["groups"].get(name)
    tasks: Sequence[Any] = group.get_all_tasks() if group is not None else [asked.loaded["tasks"][name]]
    own = {task.get_config("num_fewshot") for task in tasks}
    shots = {given if asked.num_fewshot is None or given == 0 else asked.num_fewshot for given in own}
    return (shots.pop() or 0) if len(shots) == 1 else None
