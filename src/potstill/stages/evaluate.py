"""evaluate: compare teacher, student before, student after and control on the same held-out data.

Makes `comparison.json` (rows with intervals, and paired differences) and the files of each measurement. Models that
were scored before a stop are not scored again.
"""

from collections.abc import Iterator

from potstill.evaluation import (
    answers,
    baselines,
    continuations,
    conversations,
    held_out_text,
    lm_eval_tasks,
    minimal_pairs,
    sample_texts,
    snapshot_scores,
    speed,
    written_answers,
)
from potstill.evaluation.candidate_models import Measurement, loadable, own_models, reading_alike
from potstill.evaluation.measurement_cost import expenses
from potstill.files.atomic import write_json
from potstill.pipeline.work import Made, Work
from potstill.recipe import Recipe


def run(work: Work) -> Made:
    """Run all measurements of the recipe, and compare the models."""
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
    summary["made"] = "; ".join(one.summary["made"] for one in found if "made" in one.summary)
    # Costs go into the manifest, not into the outputs: they differ between two evaluations with equal results.
    summary["costs"] = [one.to_dict() for one in expenses(work.folder)]
    return Made([comparison, *(output for one in found for output in one.outputs)], summary)


def check(recipe: Recipe) -> None:
    """Refuse continuations, baselines, tasks, answers and a rule of selection that cannot be measured."""
    for measured in (continuations, baselines, lm_eval_tasks, snapshot_scores, written_answers):
        measured.check(recipe)


def _measurements(work: Work) -> Iterator[Measurement]:
    if work.recipe.asks:
        yield answers.measure(work) if work.recipe.judges_numbers else written_answers.measure(work)
    else:
        yield from _text_measurements(work)
    if work.recipe.evaluate.speed:
        yield speed.measure(work)
    if work.recipe.evaluate.tasks:
        yield lm_eval_tasks.measure(work, {**loadable(work, own_models(work)), **baselines.baselines(work)})


def _text_measurements(work: Work) -> Iterator[Measurement]:
    own, others = own_models(work), baselines.baselines(work)
    models = {**own, **baselines.sharing_tokens(work, others)}
    if work.recipe.chats:
        yield conversations.measure(work, models)
        yield written_answers.measure(work)
    else:
        yield held_out_text.measure(work, models)
        if work.recipe.evaluate.samples:
            yield sample_texts.measure(work, own)
    for name in work.recipe.evaluate.minimal_pairs:
        yield minimal_pairs.measure(work, reading_alike(work, loadable(work, models)), name)
    for name in work.recipe.evaluate.continuations:
        # Continuations compare text with text, so baselines with other tokens take part.
        yield continuations.measure(work, {**loadable(work, own), **others}, name)
