"""Score a model on standard tasks with lm-evaluation-harness (Gao et al., https://doi.org/10.5281/zenodo.5371628).

Every figure is lm-eval's own, from its own code: the same model on the same task, in the same number format and
batches, gives the same digits as the command `lm_eval`. If that command gets several tasks at once, it mixes their
requests in common batches, and the last digits of a perplexity change; here each task is asked alone. The contribution
of each item is kept, so that ``compare.py`` can compare two models on the same items.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal, Self

import numpy as np
import torch

from potstill.errors import UserError, first_line
from potstill.metrics.lm_eval.load import LoadedTask, quiet

Better = Literal["lower", "higher"]

OF_ITEMS = ("mean", "perplexity", "weighted_perplexity", "bits_per_byte")
"""lm-eval's aggregations that are functions of a ratio of sums over items. Only these can be paired item by item."""


@dataclass(frozen=True)
class MetricScore:
    """One metric of one task or group, as lm-eval computes it.

    Attributes:
        value, stderr: lm-eval's own figure and its own standard error; None if it gives no standard error.
        n: the number of items, over all tasks.
        better: the better direction; None if lm-eval does not say.
        aggregation: how items make the value: one of ``OF_ITEMS``, or ``other``.
        items: by task, the contribution of each item in order: one number, or numerator and denominator. Empty if the
            aggregation is ``other``.
        weights: each task's share of the value; 1 for a task that is in no group.
    """

    value: float
    stderr: float | None
    n: int
    better: Better | None
    aggregation: str
    items: dict[str, list[Any]]
    weights: dict[str, float]


@dataclass(frozen=True)
class Promise:
    """A metric that a task will have: whether it is made of single items, and its better direction."""

    of_items: bool
    better: Better | None


@dataclass(frozen=True)
class TaskScores:
    """The scores of one model on one task or group.

    Attributes:
        version: of lm-eval.
        fingerprint: the SHA-256 of all items with their prompts and targets. Scores of other items are not compared.
        n: the number of items of each task.
        scores: by `task/metric`, or by `task/metric,filter` if lm-eval filters the answer.
        parts: the scores of the tasks inside a group that has its own figure, by the same kind of names.
        read, written: the number of tokens of all requests, and of the model's answers.
    """

    version: str
    fingerprint: str
    n: dict[str, int]
    scores: dict[str, MetricScore]
    parts: dict[str, MetricScore]
    read: int
    written: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON, losslessly."""
        plain = {side: {name: vars(one) for name, one in getattr(self, side).items()} for side in ("scores", "parts")}
        return vars(self) | plain

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        back = {side: {name: MetricScore(**one) for name, one in data[side].items()} for side in ("scores", "parts")}
        return cls(**data | back)


def score_task(
    model: Any, tokenizer: Any, asked: LoadedTask, *, batch_size: int = 16, standard_errors: bool = True
) -> TaskScores:
    """Score a causal language model on a task, with lm-eval's own code.

    The random generators of Python, numpy and torch keep their state.

    Args:
        model: a transformers model, or an adapter on one, in eval mode and on its device.
        tokenizer: the model's own.
        asked: the task.
        batch_size: as `lm_eval --batch_size`; another one may change the last digits.
        standard_errors: False leaves out lm-eval's standard errors; they take minutes for a perplexity of thousands of
            items.

    Raises:
        UserError: lm-eval cannot ask this model this task.
    """
    with quiet(), _lm_evals_seeds():
        from lm_eval.evaluator import evaluate
        from lm_eval.models.huggingface import HFLM

        _prepare(asked)
        try:
            wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
            how = {} if standard_errors else {"bootstrap_iters": 0}
            found = evaluate(lm=wrapped, task_dict=asked.loaded, limit=asked.limit, log_samples=True, **how)
        except (ValueError, TypeError, AssertionError, NotImplementedError) as error:
            raise UserError(
                f"task {asked.name!r}: lm-eval cannot ask it of this model ({first_line(error)})"
            ) from error
    return _scores(found, asked, *_tokens(asked, tokenizer))


def _prepare(asked: LoadedTask) -> None:
    """Prepare tasks as ``lm_eval.simple_evaluate`` does. That function also takes 8 s to describe the machine."""
    from lm_eval.defaults import DEFAULT_OTHER_SEED

    for task in asked.loaded["tasks"].values():
        own = task.get_config("num_fewshot")
        if asked.num_fewshot is not None and own != 0:
            task.set_config(key="num_fewshot", value=asked.num_fewshot)
        elif own is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)


@contextmanager
def _lm_evals_seeds() -> Iterator[None]:
    """lm-eval's own seeds in every random generator; afterwards, the generators have their former state again."""
    from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED

    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(DEFAULT_RANDOM_SEED)
        np.random.seed(DEFAULT_OTHER_SEED)
        torch.manual_seed(DEFAULT_OTHER_SEED)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _tokens(asked: LoadedTask, tokenizer: Any) -> tuple[int, int]:
    """The tokens of all requests and of all answers."""
    instances = [one for task in asked.loaded["tasks"].values() for one in task.instances]
    requests = ["".join(part for part in one.args if isinstance(part, str)) for one in instances]
    answers = [text for one in instances for text in one.resps if isinstance(text, str)]
    read, written = (sum(map(len, tokenizer(texts)["input_ids"])) if texts else 0 for texts in (requests, answers))
    return read, written


def _scores(found: Mapping[str, Any], asked: LoadedTask, read: int, written: int) -> TaskScores:
    tasks = {name: _of_task(name, found, task.aggregation()) for name, task in asked.loaded["tasks"].items()}
    plain = {name: score for each in tasks.values() for name, score in each.items()}
    group = asked.loaded["groups"].get(asked.name)
    grouped = {} if group is None else _of_group(group, found, plain)
    return TaskScores(
        metadata.version("lm_eval"),
        _fingerprint(found["samples"]),
        {name: found["results"][name]["sample_len"] for name in tasks},
        grouped or plain,
        plain if grouped else {},
        read,
        written,
    )


def _of_task(
    name: str, found: Mapping[str, Any], aggregations: Mapping[str, Callable[..., Any]]
) -> dict[str, MetricScore]:
    scores = {}
    for metric, filtered, value, stderr in _metrics(found["results"][name]):
        aggregation = aggregation_of(aggregations.get(metric))
        each = [
            sample[metric] for sample in found["samples"][name] if sample["filter"] == filtered and metric in sample
        ]
        items = {name: [_plain(one) for one in each]} if aggregation in OF_ITEMS else {}
        better = found["higher_is_better"].get(name, {}).get(metric)
        scores[_called(name, metric, filtered)] = MetricScore(
            value, stderr, len(each), _direction(better), aggregation, items, {name: 1.0}
        )
    return scores


def _of_group(group: Any, found: Mapping[str, Any], plain: Mapping[str, MetricScore]) -> dict[str, MetricScore]:
    """The group's own figures: means over its tasks, unweighted or weighted by size."""
    by_size = {one.metric: one.weight_by_size for one in group.aggregate_metric_list or ()}
    scores = {}
    for metric, filtered, value, stderr in _metrics(found["results"][group.name]):
        parts = {task.task_name: plain.get(_called(task.task_name, metric, filtered)) for task in group.get_all_tasks()}
        having = {name: part for name, part in parts.items() if part is not None}
        sizes = {name: found["results"][name]["sample_len"] if by_size[metric] else 1 for name in having}
        means = all(part.aggregation == "mean" for part in having.values())
        items = {name: part.items[name] for name, part in having.items()} if means else {}
        directions = {part.better for part in having.values()}
        scores[_called(group.name, metric, filtered)] = MetricScore(
            value,
            stderr,
            sum(part.n for part in having.values()),
            directions.pop() if len(directions) == 1 else None,
            "mean" if means else "other",
            items,
            {name: size / sum(sizes.values()) for name, size in sizes.items()},
        )
    return scores


def _metrics(results: Mapping[str, Any]) -> Iterator[tuple[str, str, float, float | None]]:
    """Metric, filter, value and standard error, out of lm-eval's flat results (`acc,none`, `acc_stderr,none`)."""
    for key, value in results.items():
        metric, comma, filtered = key.partition(",")
        if comma and not metric.endswith("_stderr") and isinstance(value, int | float | np.number):
            stderr = results.get(f"{metric}_stderr,{filtered}")
            yield metric, filtered, float(value), None if stderr in (None, "N/A") else float(stderr)


def _called(task: str, metric: str, filtered: str) -> str:
    return f"{task}/{metric}" + ("" if filtered == "none" else f",{filtered}")


def promised(asked: LoadedTask) -> dict[str, Promise]:
    """The metrics that a task or group will have, by `task/metric`, without filters."""
    found = dict[str, Promise]()
    for name in asked.shown:
        for metric, promise in _promises(asked, name):
            key = f"{name}/{metric}"
            found[key] = _of_both(found[key], promise) if key in found else promise
    return found


def _promises(asked: LoadedTask, name: str) -> Iterator[tuple[str, Promise]]:
    """The promise of every task of a group, or of a single task, for each metric that is shown."""
    group = asked.loaded["groups"].get(name)
    tasks: Sequence[Any] = group.get_all_tasks() if group is not None else [asked.loaded["tasks"][name]]
    shown = None if group is None else {one.metric for one in group.aggregate_metric_list or ()}
    # A group is a mean over its tasks; it is made of items only if the tasks' figures are means themselves.
    allowed = OF_ITEMS if group is None else ("mean",)
    for task in tasks:
        for metric, own in task.aggregation().items():
            if shown is None or metric in shown:
                better = _direction(task.higher_is_better().get(metric))
                yield metric, Promise(aggregation_of(own) in allowed, better)


def _of_both(one: Promise, other: Promise) -> Promise:
    """The promise of a group, from those of two of its tasks."""
    return Promise(one.of_items and other.of_items, one.better if one.better == other.better else None)


def aggregation_of(function: Callable[..., Any] | None) -> str:
    """How lm-eval makes the value from the items' contributions: one of ``OF_ITEMS``, or ``other``."""
    from lm_eval.api.registry import get_aggregation

    # Without an aggregation, lm-eval takes the mean.
    known = {get_aggregation(name): name for name in OF_ITEMS}
    return "mean" if function is None else known.get(function, "other")


def _direction(higher: bool | None) -> Better | None:
    return None if higher is None else "higher" if higher else "lower"


def _plain(item: Any) -> Any:
    return [float(part) for part in item] if isinstance(item, Sequence | np.ndarray) else float(item)


def _fingerprint(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    whole = hashlib.sha256()
    for name, each in samples.items():
        for sample in each:
            told = (name, sample["filter"], sample["doc_hash"], sample["prompt_hash"], sample["target_hash"])
            whole.update(repr(told).encode())
    return whole.hexdigest()
