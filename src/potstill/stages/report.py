"""report: one self-contained page with everything that a reader needs to judge the run. Makes `report/index.html`."""

import json
import platform
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from potstill import ready
from potstill.files import read_json
from potstill.hardware import device_name
from potstill.pipeline import BY_NAME, STAGES, Made, Work, steps_of
from potstill.recipe.corpus import HeldOutText
from potstill.report.data import HELD_OUT_METRICS, Curve, Metric, Model, Passage, Report, Stage, Token
from potstill.report.page import render
from potstill.run import RECIPE, Step, now, versions
from potstill.scoring.emissions import Cost
from potstill.scoring.statistics import Paired, Row

SAID = {"loss", "learning_rate", "grad_norm", "epoch", "step", "num_input_tokens_seen"}
"""What a training log has besides its loss terms and how long it took (`train_…`)."""


def run(work: Work) -> Made:
    """Draw the page."""
    page = work.folder / "index.html"
    partial = work.folder / ".index.html.partial"
    partial.write_text(render(gather(work)), encoding="utf-8")
    partial.replace(page)
    return Made([page], {"bytes": page.stat().st_size})


def gather(work: Work) -> Report:
    """Everything that the page shows, from what the earlier stages left in the run folder."""
    recipe, run = work.recipe, work.run
    comparison = read_json(run.path("evaluate") / "comparison.json")
    models, corpus = _models(work), _summary(work, "corpus")
    teachers = [model for model in models if model.role == "teacher"]
    student = next(model for model in models if model.role == "student")
    learned_from = " + ".join(f"{one.name} ({_millions(one.parameters)}, {one.layers} layers)" for one in teachers)
    story = (
        f"{learned_from} → a student of {_millions(student.parameters)} parameters in {student.layers} layers, "
        f"from {corpus['train_tokens']:,} tokens"
    )
    name = run.folder.name
    return Report(
        title=recipe.about,
        recipe=name,
        story=story,
        version=versions()["potstill"],
        date=now().partition("T")[0],
        host=f"{platform.machine()}, {device_name()}",
        command=f"potstill run {run.folder / RECIPE} --run-dir runs/again",
        rows=tuple(Row.from_dict(row) for row in comparison["rows"]),
        paired=tuple(Paired.from_dict(pair) for pair in comparison["paired"]),
        models=tuple(models),
        stages=tuple(stage for one in STAGES if one.name != "report" for stage in _stages(work, one.name)),
        curves=tuple(curve for name in ("distil", "control") for curve in _curves(work, name)),
        passages=tuple(
            Passage(passage["title"], tuple(_token(token) for token in passage["tokens"]))
            for passage in read_json(run.path("evaluate") / "passages.json")
        ),
        notes=tuple(_notes(work)),
        metrics=HELD_OUT_METRICS + tuple(_of_pairs(name) for name in recipe.evaluate.minimal_pairs),
        units="held-out sequences" if isinstance(recipe.corpus.held_out, HeldOutText) else "held-out documents",
        confidence=recipe.evaluate.confidence,
    )


def _of_pairs(name: str) -> Metric:
    return Metric(name, name, "minimal pairs, mean over subtasks", "higher", percent=True)


def _models(work: Work) -> list[Model]:
    found = []
    for teacher in ready.teachers(work):
        found.append(_model(teacher.name, teacher.config(), teacher.parameters(), None, "teacher"))
    start, summary = work.run.path("student") / "start", _summary(work, "student")
    config = AutoConfig.from_pretrained(start)
    trained = work.run.path(Step("distil", work.recipe.seeds[0])) / "student"
    found.append(_model("student before", config, summary["parameters"], start, "start"))
    found.append(_model("student", config, summary["parameters"], trained, "student"))
    return found


def _model(name: str, config: Any, parameters: int, folder: Path | None, role: str) -> Model:
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder else None
    return Model(name, parameters, config.num_hidden_layers, config.hidden_size, size, role)


def _stages(work: Work, name: str) -> list[Stage]:
    found = []
    for step in steps_of(work.recipe, BY_NAME[name]):
        manifest = work.run.manifest(step)
        assert manifest is not None, f"{step} is not done"
        size = sum(made["bytes"] for made in manifest["outputs"].values())
        tokens = _tokens(manifest["summary"])
        cost = Cost.from_dict(manifest["cost"])
        found.append(Stage(str(step), manifest["summary"]["made"], cost, size, tokens, manifest["attempts"]))
    return found


def _tokens(summary: dict[str, Any]) -> int | None:
    """The tokens that a stage dealt with, as its summary counts them; a capture counts each teacher's."""
    for key in ("tokens", "train_tokens"):
        if key in summary:
            return int(summary[key])
    each = [part["tokens"] for part in summary.values() if isinstance(part, dict) and "tokens" in part]
    return sum(each) if each else None


def _curves(work: Work, stage: str) -> list[Curve]:
    found = []
    for step in steps_of(work.recipe, BY_NAME[stage]):
        lines = (work.run.path(step) / "log.jsonl").read_text(encoding="utf-8").splitlines()
        points = tuple(_point(json.loads(line)) for line in lines)
        found.append(Curve("student" if stage == "distil" else "control", step.seed or 0, points))
    return found


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
    if recipe.distil.keep == "best":
        notes.append(
            "Student and control are the best of their saved weights, by cross-entropy on text that is not judged."
        )
    if recipe.control is None:
        notes.append("The recipe leaves the control out, so nothing here tells distillation from mere training.")
    if len(recipe.seeds) == 1:
        notes.append("One seed: the intervals are over documents, and say nothing of another training run.")
    return notes


def _summary(work: Work, step: str) -> dict[str, Any]:
    manifest = work.run.manifest(step)
    assert manifest is not None, f"{step} is not done"
    return manifest["summary"]


def _millions(count: int) -> str:
    return f"{count / 1e6:,.0f}M" if count >= 1e6 else f"{count:,}"
