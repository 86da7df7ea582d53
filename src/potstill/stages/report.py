"""report: make `report/index.html`, one self-contained page with all figures of the run and their evidence.

Beside it: `comparison.json` with all of these figures, and in the folder `export/` the card of each student.
"""

import json
import math
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import safe_open

from potstill.cost import Cost, Expense
from potstill.device import device_name
from potstill.evaluation import baselines
from potstill.evaluation.shown_prompts import shown_prompts
from potstill.evaluation.speed import bytes_of_teacher
from potstill.evaluation.written_samples import on_policy_trainings
from potstill.export.chart import chart
from potstill.export.entries import entries
from potstill.export.evidence import evidence
from potstill.export.licences import licences
from potstill.export.model_card import write_cards
from potstill.files.atomic import read_json, write_json, write_text
from potstill.metrics.answers.decisions import in_effect, read_decisions
from potstill.metrics.results import Paired, Result
from potstill.metrics.speed import Speed
from potstill.models.folder import ADAPTER
from potstill.models.pretrained import ModelSource
from potstill.pipeline import artifacts, training_data
from potstill.pipeline.graph import BY_NAME, STAGES, steps_of
from potstill.pipeline.manifest import now, versions
from potstill.pipeline.runs import COMPARISON
from potstill.pipeline.steps import select_step
from potstill.pipeline.work import Made, Work
from potstill.recipe import Recipe
from potstill.recipe.candidates import Candidate, trained_candidates
from potstill.recipe.load import recipe_text, saved_recipe
from potstill.recipe.served import served_teachers
from potstill.recipe.step import SAVED_AS, Step
from potstill.recipe.training_fields import trackers_of
from potstill.report.data import (
    ANSWER_METRICS,
    CHAT_METRICS,
    HELD_OUT_METRICS,
    REFERENCE_LOSS,
    TURN_METRICS,
    WRITTEN_METRICS,
    Curve,
    Foreseen,
    Metric,
    Model,
    Passage,
    Report,
    SnapshotPoint,
    StageCost,
    Token,
    pair_metric,
    part_metrics,
    prompt_metrics,
)
from potstill.report.notes import across_tokenizers, compared_turns, counterparts, notes, taught_rows
from potstill.report.page import render
from potstill.report.reuse import Reuse, StudentFolder
from potstill.report.served_teachers import notes_of_served
from potstill.report.story import about_student, story, units_of
from potstill.report.trackers import VERDICT, tell_verdict, tracked_run
from potstill.report.warnings import all_tied, ended_early, trials_tied
from potstill.stages.search import all_tie


def run(work: Work) -> Made:
    """Write the page, its figures as JSON, and the cards; and tell the trackers what came of it."""
    report, page, comparison = gather(work), work.folder / "index.html", work.folder / COMPARISON
    write_text(page, render(report))
    facts = evidence(report, work.recipe, work.run, licences(work.recipe))
    write_json(comparison, facts)
    write_cards(work.run.path("export"), facts, chart(report))
    training = work.recipe.distil.training
    tell_verdict(trackers_of(training), tracked_run(work.run.folder, VERDICT, training), report)
    return Made([page, comparison], {"bytes": page.stat().st_size})


def gather(work: Work) -> Report:
    """Everything that the page shows, read from the outputs of the earlier stages."""
    recipe, run = work.recipe, work.run
    comparison = read_json(run.path("evaluate") / "comparison.json")
    models, alone = _models(work), _name_on_page(recipe)
    passages = read_json(run.path("evaluate") / "passages.json") or []
    return Report(
        title=recipe.about,
        recipe=run.folder.name,
        story=_story(work, models),
        version=versions()["potstill"],
        date=now().partition("T")[0],
        host=f"{platform.machine()}, {device_name()}, in {work.recipe.precision}",
        command=f"potstill run {run.folder / SAVED_AS} --run-dir runs/again",
        rows=tuple(Result.from_dict(row | {"model": alone(row["model"])}) for row in comparison["rows"]),
        paired=tuple(Paired.from_dict(pair | {"a": alone(pair["a"])}) for pair in comparison["paired"]),
        models=tuple(models),
        stages=tuple(stage for one in STAGES if one.name != "report" for stage in _stages(work, one.name)),
        expenses=_expenses(work),
        curves=tuple(curve for name in ("distil", "control") for curve in _curves(work, name)),
        snapshots=tuple(_snapshots(work)),
        on_policy=on_policy_trainings(work, alone),
        speed=_speed(work),
        exports=tuple(entries(recipe, run)),
        passages=tuple(
            Passage(passage["title"], tuple(map(Token.from_dict, passage["tokens"]))) for passage in passages
        ),
        prompts=shown_prompts(work, alone),
        notes=(
            *notes(recipe, run.folder, comparison.get("undecided", {}), _decision_count(work)),
            *taught_rows(_summary(work, training_data.taught_by(recipe)).get("taught", {})),
            *across_tokenizers(_summary(work, "corpus").get("alignment")),
            *counterparts(comparison.get("counterparts", {})),
            *compared_turns(_compared_turns(work)),
            *_notes_of_served(work),
        ),
        metrics=_metrics(recipe, comparison),
        turns=TURN_METRICS if recipe.chats else (),
        parts=part_metrics(_metrics(recipe, comparison), comparison.get("parts", ())),
        units=units_of(recipe),
        confidence=recipe.evaluate.confidence,
        asks=recipe.asks,
        warnings=_warnings(work),
        placebos=tuple(
            Candidate("student", name).label for name in recipe.variants if not recipe.sample_set_of(name).own
        )
        if len(recipe.variants) > 1
        else (),
        reuse=_reuse(work),
    )


def _compared_turns(work: Work) -> Any:
    """What is compared of conversations, or of the answers to questions in the first student's sample set."""
    if not work.recipe.asks:
        return _summary(work, "corpus").get("compared_turns")
    made = work.run.manifest(Step("strategies", name=work.recipe.sample_set_of(work.recipe.first_variant).name))
    return None if made is None else made["summary"].get("compared_turns")


def _reuse(work: Work) -> Reuse:
    recipe, alone = saved_recipe(work.run.folder), _name_on_page(work.recipe)
    found = []
    for name in work.recipe.variants:
        student = Candidate("student", name, work.recipe.seeds[0])
        folder = artifacts.trained_folder(work, student)
        found.append(StudentFolder(alone(student.label), str(folder), (folder / ADAPTER).is_file()))
    return Reuse(tuple(found), recipe_text(recipe, defaults=False), recipe_text(recipe))


def _name_on_page(recipe: Recipe) -> Callable[[str], str]:
    """Returns a model's name on the page. If there is only one student, it is called "student" without its own name."""
    only = Candidate("student", recipe.first_variant).label if len(recipe.variants) == 1 else None
    return lambda model: "student" if model == only else model


def _story(work: Work, models: list[Model]) -> str:
    teachers = [model for model in models if model.role == "teacher"]
    start = next(model for model in models if model.role == "start")
    learned_from = _summary(work, "corpus")["train_questions" if work.recipe.asks else "train_tokens"]
    return story(work.recipe, teachers, start, learned_from)


def _metrics(recipe: Recipe, comparison: dict[str, Any]) -> tuple[Metric, ...]:
    """All metrics that the comparison may have; those of tasks are described in the comparison itself."""
    of_tasks = tuple(Metric(**metric) for metric in comparison.get("tasks", {}).get("metrics", ()))
    if recipe.judges_numbers:
        return ANSWER_METRICS + of_tasks
    if recipe.asks:
        return (REFERENCE_LOSS, *WRITTEN_METRICS, *of_tasks)
    of_pairs = tuple(pair_metric(name) for name in recipe.evaluate.minimal_pairs)
    of_prompts = tuple(metric for name in recipe.evaluate.continuations for metric in prompt_metrics(name))
    first = CHAT_METRICS + WRITTEN_METRICS if recipe.chats else HELD_OUT_METRICS
    return first + of_pairs + of_prompts + of_tasks


def _models(work: Work) -> list[Model]:
    found = []
    for teacher in artifacts.teachers(work):
        size = None if teacher.is_elsewhere else bytes_of_teacher(teacher)
        one = _model(teacher.name, teacher.config(), teacher.parameters(), None, "teacher")
        found.append(replace(one, bytes=size))
    start, summary = work.run.path("student") / "start", _summary(work, "student")
    config, alone = ModelSource(str(start), "the run's student").config(), _name_on_page(work.recipe)
    found.append(_model("student before", config, summary["parameters"], start, "start"))
    for name in work.recipe.variants:
        trained = artifacts.trained_folder(work, Candidate("student", name, work.recipe.seeds[0]))
        about = about_student(work.recipe, name) if len(work.recipe.variants) > 1 else ""
        role = alone(Candidate("student", name).label)
        found.append(_model(name or "student", config, summary["parameters"], trained, role, about))
    if work.recipe.control is not None:
        trained = artifacts.trained_folder(work, Candidate("control", None, work.recipe.seeds[0]))
        about = "the same training without the teacher"
        found.append(_model("control", config, summary["parameters"], trained, "control", about))
    found += [Model(name, count, role=name) for name, count in baselines.parameters(work).items()]
    return found


def _model(name: str, config: Any, parameters: int | None, folder: Path | None, role: str, about: str = "") -> Model:
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder else None
    adapter = _adapter(folder / "adapter_model.safetensors") if folder else None
    layers, hidden = (getattr(config, key, None) for key in ("num_hidden_layers", "hidden_size"))
    return Model(name, parameters, layers, hidden, size, role, about, adapter)


def _adapter(file: Path) -> int | None:
    """The number of parameters of an adapter; None if there is no adapter."""
    if not file.is_file():
        return None
    with safe_open(file, "pt") as weights:
        return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118


def _stages(work: Work, name: str) -> list[StageCost]:
    found = []
    for step in steps_of(work.recipe, BY_NAME[name]):
        manifest = work.run.manifest(step)
        assert manifest is not None, f"{step} is not done"
        size = sum(made["bytes"] for made in manifest["outputs"].values())
        tokens = _tokens(manifest["summary"])
        if name == "evaluate":
            tokens = sum(one.read + one.written for one in _expenses(work)) or tokens
        cost = Cost.from_dict(manifest["cost"])
        found.append(
            StageCost(
                str(step),
                manifest["summary"]["made"],
                cost,
                size,
                tokens,
                manifest["attempts"],
                Foreseen.from_manifest(manifest),
            )
        )
    return found


def _expenses(work: Work) -> tuple[Expense, ...]:
    """The cost of each measurement of each model."""
    return tuple(Expense.from_dict(one) for one in _summary(work, "evaluate")["costs"])


def _speed(work: Work) -> Speed | None:
    """The size and speed of the models, by their names on the page."""
    measured, alone = _summary(work, "evaluate").get("speed"), _name_on_page(work.recipe)
    if measured is None:
        return None
    found = Speed.from_dict(measured)
    return found.renamed({one.model: alone(one.model) for one in found.models})


def _tokens(summary: dict[str, Any]) -> int | None:
    """The tokens of a stage, from its summary; a capture has a count for each teacher."""
    for key in ("tokens", "train_tokens"):
        if key in summary:
            return int(summary[key])
    each = [part["tokens"] for part in summary.values() if isinstance(part, dict) and "tokens" in part]
    return sum(each) if each else None


def _curves(work: Work, stage: str) -> list[Curve]:
    found, alone = [], _name_on_page(work.recipe)
    for step in steps_of(work.recipe, BY_NAME[stage]):
        lines = (work.run.path(step) / "log.jsonl").read_text(encoding="utf-8").splitlines()
        model = alone(Candidate("student", step.name).label) if stage == "distil" else "control"
        found.append(Curve.from_log(model, step.seed or 0, map(json.loads, lines)))
    return found


def _snapshots(work: Work) -> list[SnapshotPoint]:
    """The scores of snapshots: those of `select`, and those of `potstill evaluate RUN --snapshots`."""
    alone, (rows, chosen) = _name_on_page(work.recipe), _selection_scores(work)
    measured = read_json(work.run.path("snapshots") / "curves.json") or {"rows": []}
    every = {
        tuple(row[key] for key in ("model", "seed", "step", "metric", "split")): row
        for row in [*rows, *measured["rows"]]
    }
    return [
        SnapshotPoint(
            alone(row["model"]),
            row["seed"],
            row["step"],
            row["metric"],
            row["split"],
            row["value"],
            row["low"],
            row["high"],
            chosen=(row["model"], row["seed"], f"step {row['step']}") in chosen,
        )
        for row in every.values()
    ]


def _selection_scores(work: Work) -> tuple[list[dict[str, Any]], set[tuple[str, int | None, str]]]:
    """The scores that `select` made, and its choices: model, seed and name of the chosen candidate."""
    rows: list[dict[str, Any]] = []
    chosen = set[tuple[str, int | None, str]]()
    for trained in trained_candidates(work.recipe) if work.recipe.select is not None else ():
        told = read_json(work.run.path(select_step(trained)) / "selection.json")
        chosen.add((trained.label, trained.seed, told["chosen"]))
        whose = {"model": trained.label, "seed": trained.seed, "split": "selection"}
        for one in told["candidates"]:
            if one["name"].startswith("step "):
                at = {**whose, "step": int(one["name"].removeprefix("step "))}
                rows += [{**row, **at} for row in one["rows"]]
        rows += [{**row, "model": "start", "seed": None, "step": 0, "split": "selection"} for row in told["start"]]
    return rows, chosen


def _warnings(work: Work) -> tuple[str, ...]:
    """Warnings about choices between equals."""
    recipe, tied = work.recipe, dict[str, list[int]]()
    for trained in trained_candidates(recipe) if recipe.select is not None else ():
        if read_json(work.run.path(select_step(trained)) / "selection.json")["all_tie"]:
            tied.setdefault(_name_on_page(recipe)(trained.label), []).append(trained.seed or 0)
    of_selection = all_tied(list(recipe.select.by), tied) if recipe.select is not None else ()
    ranking = read_json(work.run.path("search") / "ranking.json") or []
    of_search = () if recipe.search is None or not all_tie(ranking) else (trials_tied(len(ranking)),)
    return (*of_search, *of_selection, *ended_early(_ended_early(work)))


def _notes_of_served(work: Work) -> list[str]:
    captures = [_summary(work, str(step)) for step in steps_of(work.recipe, BY_NAME["capture"])]
    found: list[str] = []
    for name, given in served_teachers(work.recipe).items():
        traffic = [each[name]["traffic"] for each in captures if "traffic" in each.get(name, {})]
        if work.recipe.generate is not None and work.recipe.generate.by == name:
            traffic += [one for key, one in _summary(work, "generate").items() if key == "traffic"]
        found += notes_of_served(name, given, _summary(work, "teachers")[name], traffic)
    return found


def _ended_early(work: Work) -> dict[str, str]:
    """Why trainings ended before their last step, by the student's name and seed."""
    name_on_page, several = _name_on_page(work.recipe), len(work.recipe.seeds) > 1
    found: dict[str, str] = {}
    for step in steps_of(work.recipe, BY_NAME["distil"]):
        why = _summary(work, str(step)).get("ended_early")
        if why is not None:
            name = name_on_page(step.name or "student")
            found[f"{name}, seed {step.seed}" if several else name] = why
    return found


def _decision_count(work: Work) -> int:
    return len(in_effect(read_decisions(work.run.path("review") / "decisions.csv")))


def _summary(work: Work, step: str) -> dict[str, Any]:
    manifest = work.run.manifest(step)
    assert manifest is not None, f"{step} is not done"
    return manifest["summary"]
