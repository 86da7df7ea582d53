"""Live: what a run folder tells of a run that may be at work, for `potstill watch`. Nothing is run or written.

Whatever is missing or half written is left out, because the run writes while this reads.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from potstill.errors import UserError
from potstill.files.progress_log import PROGRESS, Progress, read_progress
from potstill.pipeline.graph import all_steps
from potstill.pipeline.heartbeat import RUNNING, SILENT
from potstill.pipeline.manifest import MANIFEST
from potstill.pipeline.run_folder import UNFINISHED, Run
from potstill.recipe import Recipe
from potstill.recipe.candidates import Candidate
from potstill.recipe.load import saved_recipe
from potstill.recipe.step import Step

MOST_POINTS = 200
"""Of a curve; of more, means of neighbours are drawn."""
MOST_TEXTS = 2
"""The latest steps of a training whose texts are shown."""
NO_TERM = {"time", "step", "tokens", "epoch", "grad_norm", "num_input_tokens_seen", "train_runtime"}
NO_TERM |= {"train_samples_per_second", "train_steps_per_second"}


@dataclass(frozen=True)
class LiveStep:
    """One step of a stage."""

    name: str
    state: str
    """`done`, `running`, `stopped` or `left`."""
    seconds: float | None = None
    """That it took, over all attempts; of a running one, of this attempt so far."""
    forecast: float | None = None
    """The seconds that the plan expects; None if it could not tell."""
    kwh: float | None = None
    memory: int | None = None
    """The most bytes that it had, on the accelerator or else on the host."""
    made: str = ""
    done: int | None = None
    """Of a training: optimizer steps."""
    of: int | None = None


@dataclass(frozen=True)
class LiveCurve:
    """The logged figures of one training."""

    model: str
    seed: int | None
    steps: int
    """Of the whole training."""
    terms: dict[str, list[tuple[int, float]]]
    """For each figure, its values by step."""


@dataclass(frozen=True)
class LiveText:
    """How a training's model went on after the beginnings of some samples, at one snapshot."""

    model: str
    step: int
    texts: list[dict[str, str]]
    """Each has its `beginning` and the `text` that the model wrote."""


@dataclass(frozen=True)
class LiveRun:
    """A run at one moment. Times are in seconds."""

    name: str
    about: str
    state: str
    """`running`, `stopped`, `killed`, `done` or `waiting`, if it neither runs nor was stopped midway."""
    silent: float | None
    """Since the last sign of life; None if there is none."""
    steps: tuple[LiveStep, ...]
    seconds_left: float | None
    """None if it does not run, or if nobody can tell."""
    seconds: float
    kwh: float | None
    memory: int | None
    """The bytes that the process holds now, on the accelerator or else on the host."""
    tokens_per_second: float | None
    curves: tuple[LiveCurve, ...]
    texts: tuple[LiveText, ...]
    has_report: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def look(folder: Path) -> LiveRun:
    """What the folder tells now.

    Raises:
        UserError: the folder is no run.
    """
    recipe, run, now = _recipe(folder), Run(folder), time.time()
    beat = _read(folder / RUNNING)
    silent = now - beat["time"] if isinstance(beat.get("time"), float) else None
    alive = silent is not None and silent < SILENT and not beat.get("stopped")
    at = beat.get("step") if alive else None
    logs = {step: log for step in all_steps(recipe) if (log := read_progress(run.path(step) / PROGRESS)) is not None}
    steps = [_step(run, step, beat, at, logs.get(step), now) for step in all_steps(recipe)]
    memory = beat.get("memory", {}) if alive else {}
    training = next((log for step, log in logs.items() if str(step) == at), None)
    return LiveRun(
        folder.resolve().name,
        recipe.about,
        _state(steps, beat, alive),
        silent,
        tuple(steps),
        _left(steps, training) if alive else None,
        sum(step.seconds or 0.0 for step in steps),
        _sum(step.kwh for step in steps),
        memory.get("device") or memory.get("host"),
        None if training is None else training.tokens_per_second,
        tuple(_curve(recipe, step, log) for step, log in logs.items() if log.lines),
        tuple(text for step, log in logs.items() for text in _texts(recipe, step, log)),
        (run.path("report") / "index.html").is_file(),
    )


def _recipe(folder: Path) -> Recipe:
    if not folder.is_dir():
        raise UserError(f"there is no run folder {folder}; `potstill run RECIPE` makes one under runs/")
    try:
        return saved_recipe(folder)
    except UserError:
        # A run that begins writes the recipe and then its digest: for a moment they may not agree.
        time.sleep(0.2)
        return saved_recipe(folder)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _step(run: Run, step: Step, beat: Mapping[str, Any], at: str | None, log: Progress | None, now: float) -> LiveStep:
    finished, begun = _read(run.path(step) / MANIFEST), _read(run.path(step) / UNFINISHED)
    foreseen = (beat.get("forecasts") or {}).get(str(step), {})
    found = LiveStep(str(step), "left", forecast=_expected(foreseen.get("seconds")))
    if log is not None and log.steps:
        found = replace(found, done=log.done, of=log.steps)
    if str(step) == at:
        cost = beat.get("cost") or begun.get("cost") or {}
        since = now - beat["began"] if "began" in beat else None
        return replace(found, state="running", seconds=since, kwh=cost.get("kwh"))
    if "finished" in finished:
        cost, peak, told = (finished.get(name) or {} for name in ("cost", "peak_memory", "forecast"))
        return replace(
            found,
            state="done",
            seconds=cost.get("seconds"),
            forecast=_expected(told.get("seconds")) or found.forecast,
            kwh=cost.get("kwh"),
            memory=peak.get("device") or peak.get("host"),
            made=str((finished.get("summary") or {}).get("made", "")),
        )
    if begun:
        cost = begun.get("cost") or {}
        return replace(found, state="stopped", seconds=cost.get("seconds"), kwh=cost.get("kwh"))
    return found


def _expected(ends: Any) -> float | None:
    """The middle of a forecast, which has its least, its expected and its greatest value."""
    return float(ends[1]) if isinstance(ends, list) and len(ends) == 3 else None


def _state(steps: list[LiveStep], beat: Mapping[str, Any], alive: bool) -> str:
    if alive:
        return "running"
    if all(step.state == "done" for step in steps):
        return "done"
    if beat:
        return "stopped" if beat.get("stopped") else "killed"
    return "stopped" if any(step.state == "stopped" for step in steps) else "waiting"


def _left(steps: list[LiveStep], training: Progress | None) -> float | None:
    """By the plan, and by the speed of a training that runs; None if nothing is known of some step."""
    total = 0.0
    for step in steps:
        if step.state == "done":
            continue
        measured = training.seconds_left if step.state == "running" and training is not None else None
        if measured is None and step.forecast is None:
            return None
        spent = step.seconds or 0.0 if step.state == "running" else 0.0
        total += measured if measured is not None else max(0.0, (step.forecast or 0.0) - spent)
    return total


def _sum(found: Iterator[float | None]) -> float | None:
    known = [one for one in found if one is not None]
    return sum(known) if known else None


def _model(recipe: Recipe, step: Step) -> str:
    if step.stage == "distil":
        return Candidate("student", step.name if len(recipe.variants) > 1 else None).label
    return "control" if step.stage == "control" else f"teacher {step.name}"


def _curve(recipe: Recipe, step: Step, log: Progress) -> LiveCurve:
    names = dict.fromkeys(name for line in log.lines for name in line)
    terms = {
        name: _thinned([(int(line["step"]), float(line[name])) for line in log.lines if _is_number(line.get(name))])
        for name in names
        if name not in NO_TERM and not name.startswith("on_policy/time")
    }
    return LiveCurve(_model(recipe, step), step.seed, log.steps, {name: each for name, each in terms.items() if each})


def _is_number(value: Any) -> bool:
    # A loss that is not finite has no place on a chart, and JSON has no number for it.
    return isinstance(value, int | float) and abs(value) < float("inf")


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    each = -(-len(points) // MOST_POINTS) or 1
    groups = [points[start : start + each] for start in range(0, len(points), each)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def _texts(recipe: Recipe, step: Step, log: Progress) -> list[LiveText]:
    written = [line for line in log.lines if isinstance(line.get("texts"), list)]
    return [LiveText(_model(recipe, step), line["step"], line["texts"]) for line in written[-MOST_TEXTS:]]
