"""How right `potstill plan` is: each step's forecast beside what happened, over all recipes that this machine runs.

`make experiment-plan` runs it and writes docs/experiments/plan.md; a second call runs only what is missing.
`python -m experiments.plan_accuracy RECIPE …` runs only these recipes. The times count on a machine without other work.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from experiments.pages import write_page
from experiments.seeds import table
from potstill.console import duration, say, size
from potstill.errors import UserError
from potstill.files.atomic import read_json, write_text
from potstill.pipeline.manifest import stored_manifest
from potstill.planning.ranges import Range

HERE = Path(__file__).parent
RECIPES = HERE / "plan_accuracy.yaml"
RUNS = Path("runs/experiments/plan")
PAGE = Path("docs/experiments/plan.md")
HEAD = HERE / "plan.md"
GIVEN = os.environ.get("POTSTILL") or str(Path(sys.executable).with_name("potstill"))
COMMAND = str(Path(shutil.which(GIVEN) or GIVEN).absolute())
"""The `potstill` whose forecasts are judged. It can be that of another environment."""
PLAN, SETTINGS, RUN = "plan.json", "settings.json", "run"
TIME, MEMORY = "time", "memory"
ALLOWED = {TIME: 0.25, MEMORY: 0.10}
"""The error of an expected value that is near enough."""
SHORTEST = 10.0
"""Seconds. Of a shorter step only the interval is judged: what it costs to begin is the greater part of it."""


@dataclass(frozen=True)
class Figure:
    """The time of a step in seconds, or its memory in bytes."""

    calibrated: Range | None
    """By `plan --calibrate`. None: the plan could not tell."""
    plain: Range | None
    """By `run` at its start, which tries the first layers of each model."""
    happened: float | None
    """None: it could not be measured."""

    @property
    def is_outside(self) -> bool:
        """Whether what happened lies outside the interval of the calibrated forecast."""
        return self.calibrated is not None and self.happened is not None and self.happened not in self.calibrated

    @property
    def error(self) -> float | None:
        """Of the calibrated forecast, as a share of what happened."""
        return error_of(self.calibrated, self.happened)


@dataclass(frozen=True)
class ComparedStep:
    """A step, as it was forecast and as it was."""

    recipe: str
    step: str
    figures: Mapping[str, Figure]
    """By `TIME` and `MEMORY`."""
    attempts: int = 1

    @property
    def name(self) -> str:
        """With its recipe."""
        return f"{self.recipe} {self.step}"

    @property
    def is_long(self) -> bool:
        """Whether its errors are judged: it took, or was expected to take, more than `SHORTEST`."""
        of = self.figures[TIME]
        return max(of.happened or 0.0, of.calibrated.expected if of.calibrated else 0.0) > SHORTEST


def main() -> None:
    """Run each recipe that is asked for, and write the page after each."""
    settings = recipes()
    for name in sys.argv[1:] or settings:
        if name not in settings:
            raise SystemExit(f"{name} is not in {RECIPES}, which has {', '.join(settings)}")
        try:
            measure(name, settings[name], RUNS / name)
        except UserError as error:
            say(f"{name}: {error}")
        found = {one: compared(one, RUNS / one) for one in settings}
        write_page(PAGE, page(settings, {one: steps for one, steps in found.items() if steps}))


def recipes() -> dict[str, dict[str, Any]]:
    """The recipes that are run, each with the settings that shorten it."""
    return {name: dict(given or {}) for name, given in YAML(typ="safe", pure=True).load(RECIPES).items()}


def measure(recipe: str, settings: Mapping[str, Any], folder: Path) -> None:
    """Plan a recipe and then run it, in a folder of its own. What other settings made there is removed.

    Args:
        recipe: its name or its file.
        settings: the same for plan and run, by their keys in the recipe.
        folder: for the plan and the run.

    Raises:
        UserError: `potstill` ended with an error.
    """
    if read_json(folder / SETTINGS) != dict(settings):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_text(folder / SETTINGS, json.dumps(settings))
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    if not (folder / PLAN).exists():
        # A run folder of its own: a plan reads what a run has made, and would be no forecast of a run that exists.
        told = _potstill(folder, "plan", recipe, *given, "--run-dir", "planned", "--calibrate", "--json")
        write_text(folder / PLAN, told)
    _potstill(folder, "run", recipe, *given, "--run-dir", RUN)


def _potstill(folder: Path, *arguments: str) -> str:
    """Call the command in a folder, and return what it printed."""
    say(f"{folder.name}: potstill {' '.join(arguments)}")
    ended = subprocess.run([COMMAND, *arguments], cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        raise UserError(f"`potstill {arguments[0]}` ended with {ended.returncode} in {folder}; what it says is above")
    return ended.stdout


def compared(recipe: str, folder: Path) -> list[ComparedStep]:
    """The steps of a run that are finished; none without a plan."""
    plan: Any = read_json(folder / PLAN)
    if plan is None:
        return []
    place = "device" if plan["machine"]["kind"] == "cuda" else "host"
    found = []
    for step, told in plan["steps"].items():
        manifest = stored_manifest(folder / RUN / step)
        if manifest is not None:
            of_run, peak = manifest["forecast"] or {}, manifest["peak_memory"] or {}
            keys = {TIME: ("seconds", manifest["cost"]["seconds"]), MEMORY: (f"{place}_bytes", peak.get(place))}
            figures = {
                what: Figure(_range(told[key]), _range(of_run.get(key)), was) for what, (key, was) in keys.items()
            }
            found.append(ComparedStep(recipe, step, figures, manifest["attempts"]))
    return found


def _range(told: Sequence[float] | None) -> Range | None:
    return None if told is None else Range.from_list(told)


def error_of(forecast: Range | None, happened: float | None) -> float | None:
    """The error of the expected value, as a share of what happened; None if one of them is not known."""
    return None if forecast is None or not happened else forecast.expected / happened - 1


def page(settings: Mapping[str, Mapping[str, Any]], found: Mapping[str, Sequence[ComparedStep]]) -> str:
    """The page, from the finished steps of each recipe."""
    steps = [step for several in found.values() for step in several]
    missing = [name for name in settings if not any(one.step == "report" for one in found.get(name, ()))]
    lines = [f"**Not finished: {', '.join(missing)}.** The rest of this page is of what is.", ""] if missing else []
    if not steps:
        lines = ["**Not run yet, because it needs a machine that does nothing else.**", ""]
        return "\n".join(
            [HEAD.read_text(encoding="utf-8"), *lines, "## What is shortened", "", *_shortened(settings), ""]
        )
    lines += ["## What it says", "", *verdicts(steps), ""]
    lines += ["## Each recipe as a whole", "", *_wholes(found), ""]
    lines += ["## By stage", "", *_by_stage(steps), ""]
    lines += ["## Each step", "", *(line for several in found.values() for line in _steps(several))]
    lines += ["## What was shortened", "", *_shortened(settings), ""]
    return "\n".join([HEAD.read_text(encoding="utf-8"), *lines])


def verdicts(steps: Sequence[ComparedStep]) -> list[str]:
    """How many forecasts are near enough, and the names of all that are not, or that miss their own interval."""
    again = [one.name for one in steps if one.attempts > 1]
    judged = [one for one in steps if one.attempts == 1]
    lines = []
    for what, allowed in ALLOWED.items():
        errors = {one.name: error for one in judged if one.is_long and (error := one.figures[what].error) is not None}
        far = [f"{name} ({error:+.0%})" for name, error in errors.items() if abs(error) > allowed]
        lines.append(
            f"- **{what.capitalize()}**, of the {len(errors)} steps of more than {SHORTEST:.0f} seconds: "
            f"{len(errors) - len(far)} within {allowed:.0%}. Not: {_listed(far)}."
        )
    for what in ALLOWED:
        told = [one for one in judged if one.figures[what].calibrated is not None]
        outside = [one.name for one in told if one.figures[what].is_outside]
        lines.append(f"- **Outside of its own interval** in {what}, {len(outside)} of {len(told)}: {_listed(outside)}.")
    unknown = [one.name for one in judged if one.is_long and one.figures[TIME].calibrated is None]
    lines += [f"- The plan told no time of {_listed(unknown)}."] if unknown else []
    return lines + ([f"- Stopped and gone on, so not judged: {_listed(again)}."] if again else [])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _wholes(found: Mapping[str, Sequence[ComparedStep]]) -> list[str]:
    rows = []
    for name, steps in found.items():
        times, peaks = ([one.figures[what] for one in steps if _is_whole(one.figures[what])] for what in ALLOWED)
        if times and peaks:
            time = _together(times, lambda ranges: sum(ranges, Range.exactly(0.0)), sum)
            rows.append((name, *_cells(time, duration), *_cells(_together(peaks, Range.greatest, max), size)))
    return table(("recipe", *_columns("took"), *_columns("peak")), rows)


def _is_whole(figure: Figure) -> bool:
    return figure.calibrated is not None and figure.happened is not None


def _together(
    figures: Sequence[Figure], forecast: Callable[[list[Range]], Range], happened: Callable[[list[float]], float]
) -> Figure:
    """Several steps as one, where both the forecast and what happened are known."""
    told = [one.calibrated for one in figures if one.calibrated is not None]
    plain = [one.plain for one in figures if one.plain is not None]
    were = [one.happened for one in figures if one.happened is not None]
    return Figure(forecast(told), forecast(plain) if len(plain) == len(told) else None, happened(were))


def _columns(was: str) -> tuple[str, ...]:
    what = {"took": "seconds", "peak": "memory"}[was]
    return f"{what}, calibrated", was, "error", "by `run`", "error"


def _cells(figure: Figure, show: Callable[[float], str]) -> tuple[str, ...]:
    error = _error(figure.error)
    return (
        _interval(figure.calibrated, show),
        "–" if figure.happened is None else show(figure.happened),
        f"**{error}, outside**" if figure.is_outside else error,
        "–" if figure.plain is None else show(figure.plain.expected),
        _error(error_of(figure.plain, figure.happened)),
    )


def _error(error: float | None) -> str:
    return "–" if error is None else f"{error:+.0%}"


def _interval(found: Range | None, show: Callable[[float], str]) -> str:
    if found is None:
        return "–"
    return f"{show(found.expected)} [{show(found.low)}, {show(found.high)}]"


def _by_stage(steps: Sequence[ComparedStep]) -> list[str]:
    """Of each stage's long steps, the middle error and the two ends."""
    rows = []
    long = [one for one in steps if one.is_long and one.attempts == 1]
    for stage in dict.fromkeys(one.step.partition("/")[0] for one in long):
        own = [one.figures for one in long if one.step.partition("/")[0] == stage]
        cells = []
        for what in ALLOWED:
            for errors in (
                [of[what].error for of in own],
                [error_of(of[what].plain, of[what].happened) for of in own],
            ):
                known = [error for error in errors if error is not None]
                cells.append(
                    f"{statistics.median(known):+.0%} [{min(known):+.0%}, {max(known):+.0%}]" if known else "–"
                )
        rows.append((stage, str(len(own)), *cells))
    columns = ("stage", "steps", "time, calibrated", "time, by `run`", "memory, calibrated", "memory, by `run`")
    return table(columns, rows)


def _steps(steps: Sequence[ComparedStep]) -> list[str]:
    rows = [(one.step, *_cells(one.figures[TIME], duration), *_cells(one.figures[MEMORY], size)) for one in steps]
    return [f"### {steps[0].recipe}", "", *table(("step", *_columns("took"), *_columns("peak")), rows), ""]


def _shortened(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [
        (f"`{name}`", "<br>".join(f"`{key}: {json.dumps(value)}`" for key, value in given.items()) or "nothing")
        for name, given in settings.items()
    ]
    return table(("recipe", "settings"), rows)


if __name__ == "__main__":
    main()
