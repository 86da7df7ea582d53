"""evaluate: teacher, student before, student after and control, side by side on the same held-out text or questions.

Makes `comparison.json` (rows with intervals, and paired differences) and what each measurement keeps beside it. Models
that were scored before a stop are not scored again.
"""

from collections.abc import Iterator

from potstill.evaluation import (
    answers,
    baselines,
    continuations,
    held_out_text,
    lm_eval_tasks,
    minimal_pairs,
    snapshot_scores,
)
from potstill.evaluation.candidates import Measurement, own_models
from potstill.evaluation.measurement_cost import expenses
from potstill.files.atomic import write_json
from potstill.pipeline.work import Made, Work
from potstill.recipe import Recipe


def run(work: Work) -> Made:
    """Measure all that the recipe asks for, and compare the models."""
    found = list(_measurements(work))
    comparison = work.folder / "comparison.json"
    everything = {
        "rows": [row.to_dict() for one in found for row in one.rows],
        "paired": [pair.to_dict() for one in found for pair in one.pairs],
    }
    for one in found:
        everything |= one.more
    write_json(comparison, everything)
    summary = {key: value for one in found for key, value in one.summary.items()}
    # Into the manifest: no two evaluations take the same time, and what they find is the same all the same.
    summary["costs"] = [one.to_dict() for one in expenses(work.folder)]
    return Made([comparison, *(output for one in found for output in one.outputs)], summary)


def check(recipe: Recipe) -> None:
    """Refuse continuations, baselines, tasks and a rule of selection that could not be measured."""
    for measured in (continuations, baselines, lm_eval_tasks, snapshot_scores):
        measured.check(recipe)


def _measurements(work: Work) -> Iterator[Measurement]:
    if work.recipe.asks:
        yield answers.measure(work)
    else:
        yield from _text_measurements(work)
    if work.recipe.evaluate.tasks:
        yield lm_eval_tasks.measure(work, {**own_models(work), **baselines.baselines(work)})


def _text_measurements(work: Work) -> Iterator[Measurement]:
    own, others = own_models(work), baselines.baselines(work)
    models = {**own, **baselines.sharing_tokens(work, others)}
    yield held_out_text.measure(work, models)
    for name in work.recipe.evaluate.minimal_pairs:
        yield minimal_pairs.measure(work, models, name)
    for name in work.recipe.evaluate.continuations:
        # Text in, text out: it is nothing to them how a model writes its tokens.
        yield continuations.measure(work, {**own, **others}, name)
