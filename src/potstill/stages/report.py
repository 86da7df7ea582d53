"""report: one self-contained page with everything that a reader needs to judge the run. Makes `report/index.html`."""

import json
import math
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import AutoConfig

from potstill.cost import Cost, Expense
from potstill.device import device_name
from potstill.evaluation import baselines
from potstill.files.atomic import read_json, write_text
from potstill.metrics.answers.decisions import in_effect, read_decisions
from potstill.metrics.bootstrap import Paired, Row
from potstill.pipeline import artifacts
from potstill.pipeline.graph import BY_NAME, STAGES, steps_of
from potstill.pipeline.run_folder import now, versions
from potstill.pipeline.steps import select_step
from potstill.pipeline.work import Made, Work
from potstill.recipe import Recipe
from potstill.recipe.candidates import Candidate, trained_candidates
from potstill.recipe.corpus import HeldOutText
from potstill.recipe.questions import HeldOutQuestions
from potstill.recipe.select import LOSS
from potstill.recipe.step import SAVED_AS
from potstill.report.data import (
    ANSWER_METRICS,
    HELD_OUT_METRICS,
    Curve,
    Metric,
    Model,
    Passage,
    Report,
    Snapshot,
    Stage,
    Token,
    prompt_metrics,
)
from potstill.report.page import render

SAID = {"loss", "learning_rate", "grad_norm", "epoch", "step", "num_input_tokens_seen"}
"""What a training log has besides its loss terms and how long it took (`train_…`)."""


def run(work: Work) -> Made:
    """Draw the page."""
    page = work.folder / "index.html"
    write_text(page, render(gather(work)))
    return Made([page], {"bytes": page.stat().st_size})


def gather(work: Work) -> Report:
    """Everything that the page shows, from what the earlier stages left in the run folder."""
    recipe, run = work.recipe, work.run
    comparison = read_json(run.path("evaluate") / "comparison.json")
    models, alone = _models(work), _alone(recipe)
    passages = read_json(run.path("evaluate") / "passages.json") or []
    return Report(
        title=recipe.about,
        recipe=run.folder.name,
        story=_story(work, models),
        version=versions()["potstill"],
        date=now().partition("T")[0],
        host=f"{platform.machine()}, {device_name()}",
        command=f"potstill run {run.folder / SAVED_AS} --run-dir runs/again",
        rows=tuple(Row.from_dict(row | {"model": alone(row["model"])}) for row in comparison["rows"]),
        paired=tuple(Paired.from_dict(pair | {"a": alone(pair["a"])}) for pair in comparison["paired"]),
        models=tuple(models),
        stages=tuple(stage for one in STAGES if one.name != "report" for stage in _stages(work, one.name)),
        expenses=_expenses(work),
        curves=tuple(curve for name in ("distil", "control") for curve in _curves(work, name)),
        snapshots=tuple(_snapshots(work)),
        passages=tuple(
            Passage(passage["title"], tuple(_token(token) for token in passage["tokens"])) for passage in passages
        ),
        notes=(
            *(_notes_of_answers(work, comparison["undecided"]) if recipe.asks else _notes(work)),
            *_notes_of_tasks(recipe),
        ),
        metrics=_metrics(recipe, comparison),
        units=_units(recipe),
        confidence=recipe.evaluate.confidence,
        asks=recipe.asks,
        placebos=tuple(
            Candidate("student", name).label for name in recipe.variants if not recipe.sample_set_of(name).own
        )
        if len(recipe.variants) > 1
        else (),
    )


def _alone(recipe: Recipe) -> Callable[[str], str]:
    """The name of a model on the page: an only student needs none, even where the recipe names it."""
    only = Candidate("student", recipe.first_variant).label if len(recipe.variants) == 1 else None
    return lambda model: "student" if model == only else model


def _story(work: Work, models: list[Model]) -> str:
    """What was distilled into what, and from what, in one line."""
    recipe, corpus = work.recipe, _summary(work, "corpus")
    teachers = [model for model in models if model.role == "teacher"]
    start = next(model for model in models if model.role == "start")
    learned_from = " + ".join(f"{one.name} ({_millions(one.parameters)}, {one.layers} layers)" for one in teachers)
    count = len(recipe.variants)
    students = "a student" if count == 1 else f"{count} students"
    if not recipe.asks:
        learned = f"{corpus['train_tokens']:,} tokens"
    else:
        by = "their reference solutions" if recipe.generate is None else f"answers by {recipe.generate.by}"
        strategies = list(dict.fromkeys(sample_set.strategy for sample_set in recipe.sample_sets.values()))
        prompts = f"{'strategy' if len(strategies) == 1 else 'strategies'} {', '.join(strategies)}"
        learned = f"{corpus['train_questions']:,} questions and {by} ({prompts})"
    shape = f"{_millions(start.parameters)} parameters in {start.layers} layers"
    return f"{learned_from} → {students} of {shape}, from {learned}"


def _units(recipe: Recipe) -> str:
    if recipe.asks:
        return "held-out questions"
    return "held-out sequences" if isinstance(recipe.corpus.held_out, HeldOutText) else "held-out documents"


def _metrics(recipe: Recipe, comparison: dict[str, Any]) -> tuple[Metric, ...]:
    """All that may be in the comparison; lm-eval says of its tasks' metrics what they are."""
    of_tasks = tuple(Metric(**metric) for metric in comparison.get("tasks", {}).get("metrics", ()))
    if recipe.asks:
        return ANSWER_METRICS + of_tasks
    of_pairs = tuple(_of_pairs(name) for name in recipe.evaluate.minimal_pairs)
    of_prompts = tuple(metric for name in recipe.evaluate.continuations for metric in prompt_metrics(name))
    return HELD_OUT_METRICS + of_pairs + of_prompts + of_tasks


def _of_pairs(name: str) -> Metric:
    return Metric(name, name, "minimal pairs, mean over subtasks", "higher", percent=True)


def _models(work: Work) -> list[Model]:
    found = []
    for teacher in artifacts.teachers(work):
        found.append(_model(teacher.name, teacher.config(), teacher.parameters(), None, "teacher"))
    start, summary = work.run.path("student") / "start", _summary(work, "student")
    config, alone = AutoConfig.from_pretrained(start), _alone(work.recipe)
    found.append(_model("student before", config, summary["parameters"], start, "start"))
    for name in work.recipe.variants:
        trained = artifacts.trained_folder(work, Candidate("student", name, work.recipe.seeds[0]))
        about = _about(work.recipe, name) if len(work.recipe.variants) > 1 else ""
        role = alone(Candidate("student", name).label)
        found.append(_model(name or "student", config, summary["parameters"], trained, role, about))
    found += [Model(name, count, role=name) for name, count in baselines.parameters(work).items()]
    return found


def _about(recipe: Recipe, variant: str | None) -> str:
    """What an experiment differs in."""
    said = []
    if recipe.asks:
        sample_set = recipe.sample_set_of(variant)
        said = [
            f"strategy {sample_set.strategy}",
            *([] if sample_set.own else ["its teacher spoke about other questions"]),
        ]
    if recipe.variants[variant].losses:
        said.append(" + ".join(f"{loss.weight:g} {loss.kind}" for loss in recipe.losses_of(variant)))
    return "; ".join(said)


def _model(name: str, config: Any, parameters: int, folder: Path | None, role: str, about: str = "") -> Model:
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder else None
    adapter = _adapter(folder / "adapter_model.safetensors") if folder else None
    return Model(name, parameters, config.num_hidden_layers, config.hidden_size, size, role, about, adapter)


def _adapter(file: Path) -> int | None:
    """The parameters of an adapter; None where there is none."""
    if not file.is_file():
        return None
    with safe_open(file, "pt") as weights:
        return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118


def _stages(work: Work, name: str) -> list[Stage]:
    found = []
    for step in steps_of(work.recipe, BY_NAME[name]):
        manifest = work.run.manifest(step)
        assert manifest is not None, f"{step} is not done"
        size = sum(made["bytes"] for made in manifest["outputs"].values())
        tokens = _tokens(manifest["summary"])
        if name == "evaluate":
            tokens = sum(one.read + one.written for one in _expenses(work)) or tokens
        cost = Cost.from_dict(manifest["cost"])
        found.append(Stage(str(step), manifest["summary"]["made"], cost, size, tokens, manifest["attempts"]))
    return found


def _expenses(work: Work) -> tuple[Expense, ...]:
    """What measuring each model took."""
    return tuple(Expense.from_dict(one) for one in _summary(work, "evaluate")["costs"])


def _tokens(summary: dict[str, Any]) -> int | None:
    """The tokens that a stage dealt with, as its summary counts them; a capture counts each teacher's."""
    for key in ("tokens", "train_tokens"):
        if key in summary:
            return int(summary[key])
    each = [part["tokens"] for part in summary.values() if isinstance(part, dict) and "tokens" in part]
    return sum(each) if each else None


def _curves(work: Work, stage: str) -> list[Curve]:
    found, alone = [], _alone(work.recipe)
    for step in steps_of(work.recipe, BY_NAME[stage]):
        lines = (work.run.path(step) / "log.jsonl").read_text(encoding="utf-8").splitlines()
        points = tuple(_point(json.loads(line)) for line in lines)
        model = alone(Candidate("student", step.name).label) if stage == "distil" else "control"
        found.append(Curve(model, step.seed or 0, points))
    return found


def _snapshots(work: Work) -> list[Snapshot]:
    """What was measured on the way: by `select`, and by `potstill evaluate RUN --snapshots`."""
    recipe, alone, chosen = work.recipe, _alone(work.recipe), set[tuple[str, int | None, str]]()
    rows: list[dict[str, Any]] = []
    for trained in trained_candidates(recipe) if recipe.select is not None else ():
        told = read_json(work.run.path(select_step(trained)) / "selection.json")
        chosen.add((trained.label, trained.seed, told["chosen"]))
        whose = {"model": trained.label, "seed": trained.seed}
        for one in told["candidates"]:
            if one["name"].startswith("step "):
                at = {**whose, "step": int(one["name"].removeprefix("step "))}
                rows += [{**row, **at, "split": "selection"} for row in one["rows"]]
        rows += [{**row, "model": "start", "seed": None, "step": 0, "split": "selection"} for row in told["start"]]
    measured = read_json(work.run.path("snapshots") / "curves.json") or {"rows": []}
    every = {
        tuple(row[key] for key in ("model", "seed", "step", "metric", "split")): row
        for row in [*rows, *measured["rows"]]
    }
    return [
        Snapshot(
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


def _point(logged: dict[str, float]) -> dict[str, float]:
    terms = {name: value for name, value in logged.items() if name not in SAID and not name.startswith("train_")}
    shared = {name: logged[name] for name in ("step", "loss", "learning_rate") if name in logged}
    return shared | terms | {"tokens": logged.get("num_input_tokens_seen", 0)}


def _token(token: dict[str, Any]) -> Token:
    pairs = {name: tuple((text, p) for text, p in token.get(name, ())) for name in ("teacher_top5", "student_top5")}
    return Token(token["text"], token.get("kl"), token.get("student_nll"), token.get("teacher_nll"), **pairs)


def _notes(work: Work) -> list[str]:
    recipe = work.recipe
    length = recipe.corpus.sequence_length
    notes = [
        f"Held-out sequences of {length} tokens were drawn once, at random, out of text that none was trained on."
        if isinstance(recipe.corpus.held_out, HeldOutText)
        else "Held-out documents were chosen by a hash of their text before anything was cut; none was trained on.",
        f"Every token of them but the first is predicted once, in windows of {length} tokens.",
    ]
    return notes + _notes_of_training(recipe, "text", "documents")


def _notes_of_answers(work: Work, undecided: dict[str, list[int]]) -> list[str]:
    recipe, answers = work.recipe, work.recipe.answers
    of_its_own = isinstance(recipe.corpus.held_out, HeldOutQuestions)
    notes = [
        "Held-out questions are a set of their own; what of it was among the training questions was not trained on."
        if of_its_own
        else "Held-out questions were chosen by a hash of their text; none was trained on.",
        f"Every model was asked alike, with the student’s prompt of the strategy {answers.strategy}, and answered "
        f"greedily, with at most {answers.max_new_tokens:,} tokens.",
        "An answer’s number is the first in a box; or that of its first line, if there is one value; or the one after "
        "“the answer is”; or its last. What none of these rules settles is for a person to decide.",
        "The student before training is what there is without distillation"
        + (
            f"; the control is fine-tuned on the same answers as {next(iter(recipe.variants)) or 'the student'}, by "
            "cross-entropy alone."
            if recipe.control is not None
            else "."
        ),
    ]
    waiting, decided = sum(map(sum, undecided.values())), _decided(work)
    if waiting:
        each = ", ".join(f"{model} {sum(seeds):,}" for model, seeds in undecided.items() if any(seeds))
        notes.append(
            f"{waiting:,} answers that no rule settles count as wrong until `potstill review {work.run.folder}` "
            f"settles them ({each})."
        )
    if decided:
        notes.append(f"Persons decided on {decided:,} different answers: review/decisions.csv in the run folder.")
    if not answers.teachers:
        notes.append(
            "The recipe does not let teachers answer, so nothing here tells how far students could still come."
        )
    return notes + _notes_of_training(recipe, "questions", "questions")


def _decided(work: Work) -> int:
    return len(in_effect(read_decisions(work.run.path("review") / "decisions.csv")))


def _notes_of_training(recipe: Recipe, judged_on: str, units: str) -> list[str]:
    notes = []
    if recipe.distil.keep == "best":
        are = "are" if judged_on == "questions" else "is"
        notes.append(
            "Student and control are the best of their saved weights, by cross-entropy on "
            f"{judged_on} that {are} not judged."
        )
    if recipe.select is not None:
        by = " and ".join(recipe.select.by)
        others = ", ".join(metric for metric in recipe.select.by if metric != LOSS)
        halves = f", or on half of the items of {others}, of which only the other half is reported" if others else ""
        notes.append(
            f"Student and control are the best of the weights that were kept on the way, by {by} on {judged_on} "
            f"that nothing here is reported of{halves}; of ties, the earliest."
        )
    if recipe.control is None:
        notes.append("The recipe leaves the control out, so nothing here tells distillation from mere training.")
    if len(recipe.seeds) == 1:
        notes.append(f"One seed: the intervals are over {units}, and say nothing of another training run.")
    return notes


def _notes_of_tasks(recipe: Recipe) -> list[str]:
    notes = []
    if recipe.evaluate.tasks:
        notes.append(
            "Figures of tasks are lm-eval’s own, and their intervals ours; lm-eval’s standard errors are in "
            "evaluate/comparison.json. What is said of their differences is corrected (Holm) for all tasks together."
        )
    if recipe.evaluate.models:
        named = ", ".join(f"{name} is {source}" for name, source in recipe.evaluate.models.items())
        notes.append(f"Models that this run did not make were asked in the same way: {named}.")
    return notes


def _summary(work: Work, step: str) -> dict[str, Any]:
    manifest = work.run.manifest(step)
    assert manifest is not None, f"{step} is not done"
    return manifest["summary"]


def _millions(count: int) -> str:
    return f"{count / 1e6:,.0f}M" if count >= 1e6 else f"{count:,}"
