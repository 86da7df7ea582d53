"""A run that was stopped at any moment, by Ctrl-C or a kill, continues to the same student, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tiny import toy_overrides

pytestmark = pytest.mark.slow

STEPS = 24
SLOW = """
import time, sys
from potstill.cli import main as cli
from potstill.training import trainer as distil
# A tiny step takes a millisecond; signals have to find it.
plain = distil.DistilTrainer.training_step
def training_step(*args):
    time.sleep(0.1)
    return plain(*args)
distil.DistilTrainer.training_step = training_step
sys.argv = ["potstill", *sys.argv[1:]]
cli.main()
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    steps = [f"distil.training.max_steps={STEPS}", "distil.training.save_steps=4", "distil.training.bf16=true"]
    return [*toy_overrides("quickstart", folder), *steps]


def _command(toy, run, slow=False):
    start = ["-c", SLOW] if slow else ["-m", "potstill"]
    sets = [word for override in toy for word in ("--set", override)]
    return [sys.executable, *start, "run", "quickstart", "--run-dir", str(run), *sets]


def _finish(toy, run):
    done = subprocess.run(_command(toy, run), capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _start(toy, run):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(_command(toy, run, slow=True), env={**os.environ, "PYTHONUNBUFFERED": "1"}, **pipes)


def _wait_for(process, checkpoints: Path, step: int, seconds=90.0):
    """Wait until that checkpoint, or a later one, has been begun."""
    end = time.monotonic() + seconds
    while not any(int(path.name.partition("-")[2]) >= step for path in checkpoints.glob("checkpoint-*")):
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < end, f"no checkpoint {step} in {checkpoints}"
        time.sleep(0.01)


def _results(run):
    """The outputs that must be the same, byte for byte."""
    students = [run / stage / "seed-0" / "student" / "model.safetensors" for stage in ("distil", "control")]
    stores = sorted(path for path in (run / "capture" / "smollm2").iterdir() if path.suffix != ".lock")
    numbers = json.loads((run / "evaluate" / "comparison.json").read_text())
    return {str(file.relative_to(run)): file.read_bytes() for file in (*students, *stores)}, numbers


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "whole"
    _finish(toy, run)
    return run


def _stop(toy, run, stage, step, number):
    process = _start(toy, run)
    _wait_for(process, run / stage / "seed-0" / "checkpoints", step)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    return process.returncode, out, err


def _attempts(run, step):
    return json.loads((run / step / "manifest.json").read_text())["attempts"]


def test_after_ctrl_c_it_goes_on_from_that_very_step(toy, whole, tmp_path):
    run = tmp_path / "run"
    code, out, err = _stop(toy, run, "distil", 8, signal.SIGINT)
    assert code == 130
    assert "a checkpoint is written at the end of this step" in out
    assert "stopped; the same command goes on from here" in err
    said = _finish(toy, run)
    assert "distil/seed-0: goes on" in said
    assert "goes on from checkpoint-" in said
    assert "capture: done before" in said
    assert _results(run) == _results(whole)
    assert _attempts(run, "distil/seed-0") == 2


def test_killed_again_and_again_it_comes_to_the_same_result(toy, whole, tmp_path):
    run = tmp_path / "run"
    # Each time, a checkpoint is just being written.
    for stage, step in (("distil", 8), ("distil", 16), ("control", 4)):
        code, *_ = _stop(toy, run, stage, step, signal.SIGKILL)
        assert code == -signal.SIGKILL
    assert "control/seed-0: goes on" in _finish(toy, run)
    assert _results(run) == _results(whole)
    assert _attempts(run, "distil/seed-0") == 3
    assert _attempts(run, "control/seed-0") == 2


@pytest.mark.parametrize("seconds", [0.7, 2.5])
def test_ctrl_c_while_libraries_are_imported(toy, tmp_path, seconds):
    process = subprocess.Popen(
        _command(toy, tmp_path / "run"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that started the tests in the background has every child ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in err


def test_a_scheduler_s_term_leaves_a_checkpoint(toy, tmp_path):
    run = tmp_path / "run"
    code, *_ = _stop(toy, run, "distil", 8, signal.SIGTERM)
    assert code == 130
    steps = [int(path.name.split("-")[1]) for path in (run / "distil/seed-0/checkpoints").glob("checkpoint-*")]
    assert any(step % 4 for step in steps), "a step that would not have been saved"


def test_done_is_done(toy, whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    command = _command(toy, whole)
    began = time.monotonic()
    done = subprocess.run([command[0], "-X", "importtime", *command[1:]], capture_output=True, text=True, timeout=60)
    seconds = time.monotonic() - began
    assert done.returncode == 0
    *lines, last = done.stdout.splitlines()
    assert last.startswith("the report: ")
    assert len(lines) == 8
    assert all(": done before, in" in line for line in lines)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "potstill.pipeline.runner" in imported
    assert not imported & {"torch", "transformers", "datasets"}, "to say so takes no library"
    assert seconds < 10, "a second, on a machine that does nothing else"
    made = {path: before[path] for path in before if path.name not in ("recipe.json", "verified.json")}
    assert made == {path: path.stat().st_mtime_ns for path in made}


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ("evaluate.documents=6", {"evaluate", "report"}),
        ("distil.losses.0.weight=0.9", {"distil/seed-0", "evaluate", "report"}),
        ("control.training.learning_rate=1e-4", {"control/seed-0", "evaluate", "report"}),
        ("capture.k=32", {"capture", "distil/seed-0", "evaluate", "report"}),
        ("seeds=[0, 1]", {"distil/seed-1", "control/seed-1", "evaluate", "report"}),
        ("student.layers=3", {"student", "distil/seed-0", "control/seed-0", "evaluate", "report"}),
        (
            'student.adapter={"r": 2, "target_modules": ["q_proj"]}',
            {"student", "distil/seed-0", "control/seed-0", "evaluate", "report"},
        ),
        ("about=Another sentence about the same thing", {"report"}),
        ("capture.batch_size=8", set()),
    ],
)
def test_a_changed_key_runs_what_depends_on_it(toy_run, change, again):
    from potstill.pipeline.run_folder import Run
    from potstill.pipeline.runner import run_recipe
    from potstill.recipe import load_recipe

    run, overrides = toy_run
    recipe = load_recipe("quickstart", overrides)
    run_recipe(recipe, Run(run))
    before = {str(path.relative_to(run).parent): path.stat().st_mtime_ns for path in _manifests(run)}
    aside = set((run / "replaced").glob("*"))
    run_recipe(load_recipe("quickstart", [*overrides, change]), Run(run))
    after = {str(path.relative_to(run).parent): path.stat().st_mtime_ns for path in _manifests(run)}
    assert {name for name in after if after[name] != before.get(name)} == again
    moved = {path.name for path in set((run / "replaced").glob("*")) - aside}
    assert {name.rsplit("-", 2)[0] for name in moved} == {name.replace("/", "-") for name in again & before.keys()}
    assert all((run / "replaced" / name / "manifest.json").is_file() for name in moved)


def _manifests(run):
    return [*run.glob("[!r]*/manifest.json"), *run.glob("report/manifest.json"), *run.glob("*/seed-*/manifest.json")]


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("changed")
    return folder / "run", toy_overrides("quickstart", folder)
