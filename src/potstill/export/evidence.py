"""Evidence: all figures of a finished run in one file, `report/comparison.json`, from which its cards are written.

It has what the report shows and more: the comparison with the judgement of each difference, the verdict, the models,
the costs, the recipe, the licences, and which files are the student.
"""

from collections.abc import Sequence
from dataclasses import asdict
from functools import reduce
from operator import add
from typing import Any

from potstill.cost import Cost
from potstill.export.licences import StatedLicence
from potstill.pipeline.manifest import stored_manifest
from potstill.pipeline.run_folder import Run
from potstill.pipeline.steps import select_step
from potstill.recipe import Recipe
from potstill.recipe.candidates import Candidate
from potstill.recipe.load import recipe_text
from potstill.report.cost_and_gain import main_metric
from potstill.report.data import STUDENT, Report, students
from potstill.report.significance import judge_of
from potstill.report.verdict import verdict
from potstill.report.warnings import few_units

ADAPTER = "adapter_config.json"


def evidence(report: Report, recipe: Recipe, run: Run, licences: Sequence[StatedLicence]) -> dict[str, Any]:
    """Everything that a card says of a run, as plain JSON types.

    Args:
        report: the run's report.
        recipe: the run's recipe.
        run: the run, whose stages but the report are done.
        licences: those of its teachers and its training data.
    """
    said, judge = verdict(report), judge_of(report)
    metrics = {one.name: one for one in (*report.metrics, *report.turns, *report.parts)}
    whole = reduce(add, (stage.cost for stage in report.stages)) if report.stages else Cost(0.0, None, None, "")
    return {
        "run": report.recipe,
        **{name: getattr(report, name) for name in ("title", "story", "version", "date", "host", "units")},
        "confidence": report.confidence,
        "verdict": asdict(said),
        "warnings": [*report.warnings, *few_units(report)],
        "notes": list(report.notes),
        "main_metric": None if (main := main_metric(report)) is None else main.name,
        "metrics": [asdict(metric) for metric in report.metrics],
        "rows": [row.to_dict() for row in report.rows],
        "paired": [pair.to_dict() | {"judgement": judge(pair, metrics[pair.metric])} for pair in report.paired],
        "models": [asdict(model) for model in report.models],
        "speed": None if report.speed is None else report.speed.to_dict(),
        "students": [_student(recipe, run, label) for label in students(report) or [STUDENT]],
        "stages": [
            {
                **{name: getattr(stage, name) for name in ("name", "made", "bytes", "tokens", "attempts")},
                "cost": stage.cost.to_dict() | {"kind": stage.cost.kind},
            }
            for stage in report.stages
        ],
        "cost": whole.to_dict() | {"kind": whole.kind},
        "licences": [one.to_dict() for one in licences],
        "exports": list(report.exports),
        "recipe": recipe.model_dump(mode="json", by_alias=True),
        "recipe_text": recipe_text(recipe),
    }


def _student(recipe: Recipe, run: Run, label: str) -> dict[str, Any]:
    """Where the weights of a student lie: those of its first seed."""
    name = Candidate.from_label(label).name or recipe.first_variant
    candidate = Candidate("student", name, recipe.seeds[0])
    step = candidate.step if recipe.select is None else select_step(candidate)
    manifest = stored_manifest(run.path(step))
    assert manifest is not None, f"{step} is not done"
    files = {file: made["bytes"] for file, made in manifest["outputs"].items() if file.startswith("student/")}
    return {
        "label": label,
        "name": name,
        "step": str(step),
        "folder": f"{step}/student",
        "files": files,
        "bytes": sum(files.values()),
        "seed": recipe.seeds[0],
        "seeds": len(recipe.seeds),
        "adapter": f"student/{ADAPTER}" in files,
        "chats": "student/chat_template.jinja" in files,
    }
