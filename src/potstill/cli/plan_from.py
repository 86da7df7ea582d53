"""Plan from runs: the scaling law of what earlier runs measured, and what it expects of longer and larger trainings."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from potstill.console import table
from potstill.errors import UserError
from potstill.files.atomic import read_json
from potstill.pipeline.run_folder import Run
from potstill.planning.scaling_law import Point, ScalingLaw, fit, teacher_rule
from potstill.recipe.candidates import trained_candidates
from potstill.recipe.load import saved_recipe

LIMITS = (
    "A law holds for this text, this tokenizer and this kind of student. Tokens that are read again teach less than "
    "new ones, and a snapshot before a training's end has a higher loss than a shorter training that ended."
)
BEYOND = 2
"""The expectations are for this many times the most tokens and parameters that were measured."""


def plan_from(folders: Sequence[Path], *, as_json: bool = False) -> str:
    """Fit loss against tokens and parameters on finished runs, and say what it expects of more of both.

    Raises:
        UserError: a folder is no finished run, the runs have different held-out text, or no law can be told.
    """
    measured: dict[str, list[Point]] = {}
    teachers: dict[Path, tuple[float, float]] = {}
    texts: dict[str, Path] = {}
    for folder in folders:
        run = Run(folder)
        texts.setdefault(_held_out_text(run), folder)
        if len(texts) > 1:
            first, other = texts.values()
            raise UserError(f"{first} and {other} measured other held-out text; fit runs of one text and one tokenizer")
        losses = _losses(run)
        for label, point in _points(run, losses):
            measured.setdefault(label, []).append(point)
        if "control" in losses and "teacher" in losses:
            teachers[folder] = (losses["teacher"], losses["control"])
    laws, refused = _laws(measured)
    if not laws:
        raise UserError("; ".join(f"{label}: {why}" for label, why in refused.items()))
    rules = {str(folder): teacher_rule(*pair) for folder, pair in teachers.items()}
    if as_json:
        return json.dumps({"laws": {label: _content(law) for label, law in laws.items()}, "teachers": rules}, indent=2)
    said = [_described(label, law) for label, law in laws.items()]
    said += [f"{label}: {why}" for label, why in refused.items()]
    said += [f"{folder}: {rule}" for folder, rule in rules.items()]
    return "\n\n".join([*said, LIMITS])


def _laws(measured: dict[str, list[Point]]) -> tuple[dict[str, ScalingLaw], dict[str, str]]:
    """The law of each model label, or why it has none."""
    laws: dict[str, ScalingLaw] = {}
    refused: dict[str, str] = {}
    for label, points in measured.items():
        try:
            laws[label] = fit(points)
        except UserError as error:
            refused[label] = str(error)
    return laws, refused


def _held_out_text(run: Run) -> str:
    """The digests of a run's held-out text, as its manifest has them."""
    manifest = run.manifest("corpus")
    if manifest is None:
        raise UserError(f"{run.folder} is no run whose corpus is done; name finished runs")
    found = {
        name: one["sha256"]
        for name, one in manifest["outputs"].items()
        if name.startswith("held_out/") and name.endswith(".arrow")
    }
    return json.dumps(found, sort_keys=True)


def _losses(run: Run) -> dict[str, float]:
    """The held-out loss of each model, by its label."""
    found = read_json(run.path("evaluate") / "comparison.json")
    if found is None:
        raise UserError(f"{run.folder} is not evaluated; run its recipe to the end")
    return {row["model"]: row["value"] for row in found["rows"] if row["metric"] == "loss"}


def _points(run: Run, losses: dict[str, float]) -> Iterator[tuple[str, Point]]:
    """The trained students and controls: at their ends, and at their snapshots if these are measured."""
    recipe = saved_recipe(run.folder)
    snapshots = (read_json(run.folder / "snapshots" / "curves.json") or {"rows": []})["rows"]
    seen = set()
    for trained in trained_candidates(recipe):
        manifest = run.manifest(trained.step)
        if manifest is None or trained.label not in losses:
            continue
        parameters = _parameters(run)
        summary = manifest["summary"]
        if trained.label not in seen:
            # The loss is the mean over seeds.
            seen.add(trained.label)
            yield trained.label, Point(parameters, summary["tokens"], losses[trained.label])
        for row in snapshots:
            of_this = (row["model"], row["seed"]) == (trained.label, trained.seed)
            if (
                of_this
                and (row["metric"], row["split"]) == ("loss", "reporting")
                and 0 < row["step"] < summary["steps"]
            ):
                tokens = summary["tokens"] * row["step"] / summary["steps"]
                yield trained.label, Point(parameters, tokens, row["value"])


def _parameters(run: Run) -> float:
    """A student's parameters outside of embeddings and head."""
    import torch
    from transformers import AutoModelForCausalLM

    from potstill.models.pretrained import ModelSource

    config = ModelSource(str(run.path("student") / "start"), f"the student of {run.folder}").config()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    outside = {id(one.weight): one.weight for one in (model.get_input_embeddings(), model.get_output_embeddings())}
    return float(model.num_parameters() - sum(weight.numel() for weight in outside.values()))


def _described(label: str, law: ScalingLaw) -> str:
    sizes = sorted({point.parameters for point in law.points})
    lengths = sorted({point.tokens for point in law.points})
    head = (
        f"{label}: {len(law.points)} trainings, {sizes[0]:,.0f} to {sizes[-1]:,.0f} parameters outside of embeddings "
        f"and head, {lengths[0]:,.0f} to {lengths[-1]:,.0f} tokens; the law is off by {law.deviation:.4f} nats"
    )
    constants = [(name, f"{one.value:.4g}", f"{one.low:.4g} to {one.high:.4g}") for name, one in law.constants.items()]
    asked = [("parameters", "tokens", "expected loss", "interval", "")]
    for parameters, tokens in _questions(law):
        answer = law.loss(parameters, tokens)
        interval = f"{answer.loss.low:.4f} to {answer.loss.high:.4f}"
        beyond = f"extrapolates: {answer.extrapolates}" if answer.extrapolates else ""
        asked.append((f"{parameters:,.0f}", f"{tokens:,.0f}", f"{answer.loss.value:.4f}", interval, beyond))
    return "\n".join([head, table([("constant", "value", "interval"), *constants]), table(asked)])


def _questions(law: ScalingLaw) -> list[tuple[float, float]]:
    """Parameters and tokens that a user asks for next: the most that were measured, and more of what was varied."""
    most = [max(getattr(point, name) for point in law.points) for name in ("parameters", "tokens")]
    more = [most]
    if "tokens" in law.terms:
        more.append([most[0], BEYOND * most[1]])
    if "parameters" in law.terms:
        more.append([BEYOND * most[0], most[1]])
    return [(one[0], one[1]) for one in more]


def _content(law: ScalingLaw) -> dict[str, Any]:
    return {
        "points": [asdict(point) for point in law.points],
        "terms": law.terms,
        "constants": {name: asdict(one) for name, one in law.constants.items()},
        "deviation": law.deviation,
        "expected": [
            {"parameters": parameters, "tokens": tokens, **asdict(law.loss(parameters, tokens))}
            for parameters, tokens in _questions(law)
        ],
    }
