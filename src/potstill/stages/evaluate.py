"""evaluate: teacher, student before, student after and control, side by side on the same held-out text or questions.

Makes `comparison.json` (rows with intervals, and paired differences) and what each measurement keeps beside it. Models
that were scored before a stop are not scored again.
"""

from collections.abc import Iterator

from potstill.evaluation import pairs, questions, text
from potstill.evaluation.models import Measured, compared_models
from potstill.files import write_json
from potstill.pipeline import Made, Work


def run(work: Work) -> Made:
    """Measure all that the recipe asks for, and compare the models."""
    found = list(_measured(work))
    comparison = work.folder / "comparison.json"
    everything = {
        "rows": [row.to_dict() for one in found for row in one.rows],
        "paired": [pair.to_dict() for one in found for pair in one.pairs],
    }
    for one in found:
        everything |= one.more
    write_json(comparison, everything)
    summary = {key: value for one in found for key, value in one.summary.items()}
    return Made([comparison, *(output for one in found for output in one.outputs)], summary)


def _measured(work: Work) -> Iterator[Measured]:
    if work.recipe.asks:
        yield questions.measure(work)
        return
    models = compared_models(work)
    yield text.measure(work, models)
    for name in work.recipe.evaluate.minimal_pairs:
        yield pairs.measure(work, models, name)
