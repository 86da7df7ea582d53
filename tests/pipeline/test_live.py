"""What is told of a run folder in every state that it can be found in."""

import json
import shutil

import pytest

import minimal
from potstill.errors import UserError
from potstill.files.progress_log import PROGRESS, ProgressLog
from potstill.pipeline.heartbeat import RUNNING, SILENT
from potstill.pipeline.live import look
from potstill.pipeline.run_folder import Run

NOW = 1e9


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A clock that a test sets; in seconds since 1970."""
    now = [NOW]
    monkeypatch.setattr("potstill.pipeline.live.time.time", lambda: now[0])
    return now


@pytest.fixture
def run(tmp_path):
    recipe, made = minimal.recipe(tmp_path), Run(tmp_path / "run")
    with made.open(recipe.model_dump(mode="json", by_alias=True)):
        pass
    return made


def save(run, name, content):
    file = run.folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


def beat(run, **more):
    forecasts = {step: {"seconds": [1.0, 100.0, 200.0]} for step in ("evaluate", "report", "control/seed-0")}
    save(
        run,
        RUNNING,
        {"time": NOW, "memory": {"host": 7, "device": None}, "forecasts": forecasts, **more},
    )


def finish(run, name, seconds=2.0):
    told = {"finished": "today", "cost": {"seconds": seconds, "kwh": 0.25}, "summary": {"made": "things"}}
    save(run, f"{name}/manifest.json", told | {"forecast": None, "peak_memory": {"host": 9, "device": None}})


def begin(run, name):
    save(run, f"{name}/unfinished.json", {"cost": None, "attempts": 1})


def states(run):
    return {step.name: step.state for step in look(run.folder).steps}


def test_a_run_that_was_not_begun_waits(run):
    found = look(run.folder)
    assert found.state == "waiting"
    assert {step.state for step in found.steps} == {"left"}
    assert found.seconds_left is None
    assert found.kwh is None


def test_a_run_at_work_tells_its_step_its_cost_and_the_time_left(run, clock):
    names = [step.name for step in look(run.folder).steps]
    for name in names[: names.index("distil/seed-0")]:
        finish(run, name)
    begin(run, "distil/seed-0")
    beat(run, step="distil/seed-0", began=NOW - 10, cost={"seconds": 10, "kwh": 0.5})
    log = ProgressLog(run.folder / "distil/seed-0" / PROGRESS)
    log.begin(0, 20)
    for step in range(1, 11):
        clock[0] = NOW - 10 + step
        log.write(step, 100 * step, {"loss": 1.0 / step, "cross_entropy": 2.0, "epoch": 0.1})
    found = look(run.folder)
    assert found.state == "running"
    assert states(run)["distil/seed-0"] == "running"
    assert found.kwh == pytest.approx(names.index("distil/seed-0") * 0.25 + 0.5)
    assert found.memory == 7
    (curve,) = found.curves
    assert (curve.model, curve.seed, curve.steps) == ("student", 0, 20)
    assert set(curve.terms) == {"loss", "cross_entropy"}
    distil = next(step for step in found.steps if step.name == "distil/seed-0")
    assert (distil.done, distil.of) == (10, 20)
    assert found.seconds_left == pytest.approx(3 * 100 + 10), "the plan's for three steps, and this training's own"
    assert found.tokens_per_second == pytest.approx(100)
    json.dumps(found.to_dict(), allow_nan=False)


def test_without_a_forecast_of_each_step_nobody_knows_the_time_left(run):
    beat(run, step="teachers", began=NOW, forecasts={})
    assert look(run.folder).seconds_left is None


def test_a_silent_run_was_killed_and_a_stopped_one_says_so(run):
    begin(run, "distil/seed-0")
    beat(run, step="distil/seed-0", began=0.0, time=NOW - SILENT - 1)
    assert (look(run.folder).state, states(run)["distil/seed-0"]) == ("killed", "stopped")
    beat(run, stopped=True)
    assert (look(run.folder).state, states(run)["distil/seed-0"]) == ("stopped", "stopped")


def test_a_finished_run_is_done(run):
    for step in look(run.folder).steps:
        finish(run, step.name)
    found = look(run.folder)
    assert found.state == "done"
    assert found.steps[0].made == "things"
    assert found.steps[0].memory == 9


@pytest.mark.parametrize("name", [RUNNING, "teachers/manifest.json", "distil/seed-0/unfinished.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"cost": null}'])
def test_what_is_half_written_is_left_out(run, name, content):
    save(run, name, content)
    assert look(run.folder).state in ("waiting", "killed", "stopped")


def test_texts_of_snapshots_and_losses_that_are_not_finite(run):
    (run.folder / "control/seed-0").mkdir(parents=True)
    log = ProgressLog(run.folder / "control/seed-0" / PROGRESS)
    log.begin(0, 9)
    for step in range(1, 8):
        log.write(step, step, {"loss": float("nan") if step == 3 else 1.0})
        log.write(step, step, {"texts": [{"beginning": "a", "text": str(step)}]})
    found = look(run.folder)
    assert [text.step for text in found.texts] == [6, 7]
    assert found.texts[0].model == "control"
    assert [step for step, _ in found.curves[0].terms["loss"]] == [1, 2, 4, 5, 6, 7]
    json.dumps(found.to_dict(), allow_nan=False)


def test_long_curves_are_means_of_neighbours(run):
    (run.folder / "distil/seed-0").mkdir(parents=True)
    log = ProgressLog(run.folder / "distil/seed-0" / PROGRESS)
    log.begin(0, 1000)
    for step in range(1, 1001):
        log.write(step, step, {"loss": float(step)})
    points = look(run.folder).curves[0].terms["loss"]
    assert len(points) == 200
    assert points[0] == (5, 3.0)


def test_a_folder_that_is_no_run_is_refused_in_one_sentence(tmp_path, run):
    with pytest.raises(UserError, match="there is no run folder"):
        look(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is no run folder"):
        look(tmp_path / "empty")
    shutil.rmtree(run.folder)
    with pytest.raises(UserError):
        look(run.folder)
