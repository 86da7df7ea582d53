"""The page names each forecast that was wrong; the command plans and runs a recipe in a folder of its own, once."""

import json
from dataclasses import replace

import pytest
import yaml

from experiments import plan_accuracy
from experiments.plan_accuracy import MEMORY, TIME, ComparedStep, Figure, compared, measure, page, recipes, verdicts
from potstill.errors import UserError
from potstill.planning.ranges import Range
from potstill.recipe import load_recipe, shipped_recipes
from tiny import toy_overrides

GB = 1e9


def step(name="distil/seed-0", seconds=30.0, peak=3 * GB, attempts=1):
    time = Figure(Range(25.0, 30.0, 40.0), Range(5.0, 15.0, 60.0), seconds)
    memory = Figure(Range(2.8 * GB, 3 * GB, 3.5 * GB), None, peak)
    return ComparedStep("quickstart", name, {TIME: time, MEMORY: memory}, attempts)


def test_a_forecast_outside_of_its_own_interval_is_told_by_name():
    text = "\n".join(verdicts([step(), step("capture", seconds=20.0), step("evaluate", peak=3.6 * GB)]))
    assert "**Outside of its own interval** in time, 1 of 3: quickstart capture." in text
    assert "**Outside of its own interval** in memory, 1 of 3: quickstart evaluate." in text
    assert "**Time**, of the 3 steps of more than 10 seconds: 2 within 25%. Not: quickstart capture (+50%)." in text
    assert "**Memory**, of the 3 steps of more than 10 seconds: 2 within 10%. Not: quickstart evaluate (-17%)." in text


def test_a_short_step_is_judged_by_its_interval_only():
    short = Figure(Range(0.5, 2.0, 6.0), None, 1.0)
    figures = {TIME: short, MEMORY: Figure(Range(GB, 2 * GB, 3 * GB), None, 1.1 * GB)}
    text = "\n".join(verdicts([ComparedStep("r", "corpus", figures)]))
    assert "of the 0 steps" in text
    assert "in time, 0 of 1: none." in text
    outside = replace(short, happened=7.0)
    assert "in time, 1 of 1: r corpus." in "\n".join(
        verdicts([ComparedStep("r", "corpus", {**figures, TIME: outside})])
    )


def test_what_is_not_known_is_told_and_a_stopped_step_is_not_judged():
    unknown = step("answers/teacher")
    unknown = replace(unknown, figures={**unknown.figures, TIME: Figure(None, None, 50.0)})
    text = "\n".join(verdicts([unknown, step("control/seed-0", seconds=1000.0, attempts=2)]))
    assert "in time, 0 of 0: none" in text
    assert "told no time of quickstart answers/teacher" in text
    assert "so not judged: quickstart control/seed-0" in text


def test_the_page_has_both_forecasts_and_what_is_missing():
    settings = {"quickstart": {}, "chat-mini": {"corpus.train": 200}}
    text = page(settings, {"quickstart": [step(seconds=40.0), step("report", seconds=50.0)]})
    assert "**Not finished: chat-mini.**" in text
    assert "| distil/seed-0 | 30 s [25 s, 40 s] | 40 s | -25% | 15 s | -62% |" in text
    assert "| report | 30 s [25 s, 40 s] | 50 s | **-40%, outside** |" in text
    assert "| quickstart | 1 min 00 s [50 s, 1 min 20 s] | 1 min 30 s | **-33%, outside** | 30 s | -67% |" in text
    assert "| distil | 1 | -25% [-25%, -25%] | -62% [-62%, -62%] | +0% [+0%, +0%] | – |" in text
    assert "| `chat-mini` | `corpus.train: 200` |" in text


def test_a_page_of_nothing_has_no_verdicts():
    text = page({"chat-mini": {"corpus.train": 200}}, {})
    assert "Not run yet" in text
    assert "0 of 0" not in text
    assert "| `chat-mini` | `corpus.train: 200` |" in text


def test_every_recipe_that_needs_no_hub_is_run_with_settings_that_it_has():
    settings = recipes()
    other_layout = "distilpythia-padded-mini"
    mini = [name for name in shipped_recipes() if name.endswith("-mini") and name != other_layout]
    assert set(settings) == {"quickstart", "arithmetic", *mini}
    for name, given in settings.items():
        load_recipe(name, [f"{key}={json.dumps(value)}" for key, value in given.items()])


def test_the_command_plans_and_runs_a_recipe_once(toy_folder, tmp_path, monkeypatch):
    settings = {
        key: yaml.safe_load(value)
        for key, _, value in (o.partition("=") for o in toy_overrides("quickstart", toy_folder))
    }
    folder = tmp_path / "quickstart"
    measure("quickstart", settings, folder)
    found = compared("quickstart", folder)
    assert {"capture", "distil/seed-0", "control/seed-0", "evaluate", "report"} <= {one.step for one in found}
    assert all(one.figures[TIME].calibrated and one.figures[TIME].plain and one.figures[TIME].happened for one in found)
    assert all(one.figures[MEMORY].happened > 1e8 for one in found)
    assert "### quickstart" in page({"quickstart": settings}, {"quickstart": found})
    calls = []
    monkeypatch.setattr(plan_accuracy, "_potstill", lambda folder, *given: calls.append(given[0]))
    measure("quickstart", settings, folder)
    assert calls == ["run"], "the plan is kept, and the run goes on by itself"
    monkeypatch.setattr(plan_accuracy, "_potstill", lambda folder, *given: calls.append(given[0]) or "{}")
    measure("quickstart", settings | {"seeds": [1]}, folder)
    assert calls == ["run", "plan", "run"], "what other settings made is removed"
    assert not (folder / "run").exists()


def test_a_command_that_fails_ends_its_recipe(tmp_path, monkeypatch):
    monkeypatch.setattr(plan_accuracy, "COMMAND", "false")
    with pytest.raises(UserError, match="`potstill plan` ended with 1"):
        measure("quickstart", {}, tmp_path / "quickstart")
