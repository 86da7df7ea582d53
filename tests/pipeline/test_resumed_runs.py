"""A run that was stopped at any moment, by Ctrl-C or a kill, continues to the same student, bit for bit."""

import json
import shutil
import signal
import subprocess
import sys

import pytest

import processes
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe import load_recipe
from run_outputs import outputs
from tiny import toy_overrides

pytestmark = pytest.mark.slow

STEPS = 24
HEAVY = {"torch", "transformers", "datasets", "scipy.special", "pandas", "pyarrow"}
"""Each takes longer to import than what it would be imported for."""
WRITTEN_ANEW = ("recipe.json", ".recipe.json.sha256", "verified.json")
STOP_ITSELF = """
import os, runpy, sys
from pathlib import Path
from potstill.training.trainer import DistilTrainer
stage, step, method, signal = sys.argv[1:5]
plain = getattr(DistilTrainer, method)
def stopping(self, *args, **kwargs):
    if stage in Path(self.args.output_dir).parts and self.state.global_step == int(step):
        os.kill(os.getpid(), int(signal))
    return plain(self, *args, **kwargs)
setattr(DistilTrainer, method, stopping)
sys.argv = ["potstill", *sys.argv[5:]]
runpy.run_module("potstill", run_name="__main__")
"""
"""A run that sends itself a signal at a step of one training. So the signal comes at that step on any machine."""

INTERRUPT_AN_IMPORT = """
import os, runpy, signal, sys
# A shell that started the tests in the background has every child ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
module = sys.argv.pop(1)
class Interrupt:
    def find_spec(self, name, *rest):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
runpy.run_module("potstill", run_name="__main__")
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    steps = [f"distil.training.max_steps={STEPS}", "distil.training.save_steps=4", "precision=bf16"]
    return [*toy_overrides("quickstart", folder), *steps]


def _words(toy, run):
    sets = [word for override in toy for word in ("--set", override)]
    return ["run", "quickstart", "--run-dir", str(run), *sets]


def _from_the_start(toy, run, *start):
    """A process that imports its libraries itself."""
    return subprocess.run([sys.executable, *start, *_words(toy, run)], capture_output=True, text=True)


def _finish(toy, run):
    done = processes.run("-m", "potstill", *_words(toy, run))
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _results(run):
    """The outputs that must be the same, byte for byte."""
    students = [run / stage / "seed-0" / "student" / "model.safetensors" for stage in ("distil", "control")]
    stores = sorted(path for path in (run / "capture" / "smollm2").iterdir() if path.suffix != ".lock")
    numbers = json.loads((run / "evaluate" / "comparison.json").read_text())
    return {str(file.relative_to(run)): file.read_bytes() for file in (*students, *stores)}, numbers


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    """Made by a process that orders its sets otherwise than the processes that it is compared with."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    done = _from_the_start(toy, run, "-m", "potstill")
    assert done.returncode == 0, done.stderr[-3000:]
    return run


def _stop(toy, run, stage, step, number, method="training_step"):
    """Run until a training of that stage has done `step` steps and calls `method`, and send the signal there."""
    stopped = processes.run("-c", STOP_ITSELF, stage, step, method, int(number), *_words(toy, run))
    assert "Traceback" not in stopped.stderr
    return stopped


def _attempts(run, step):
    return json.loads((run / step / "manifest.json").read_text())["attempts"]


def test_after_ctrl_c_it_goes_on_from_that_very_step(toy, whole, tmp_path):
    run = tmp_path / "run"
    stopped = _stop(toy, run, "distil", 8, signal.SIGINT)
    assert stopped.returncode == 130
    assert "a checkpoint is written at the end of this step" in stopped.stdout
    assert "stopped; the same command goes on from here" in stopped.stderr
    said = _finish(toy, run)
    assert "distil/seed-0: goes on" in said
    assert "goes on from checkpoint-9" in said
    assert "capture: done before" in said
    assert _results(run) == _results(whole)
    assert _attempts(run, "distil/seed-0") == 2


def test_killed_again_and_again_it_comes_to_the_same_result(toy, whole, tmp_path):
    run = tmp_path / "run"
    # Each time, a checkpoint has its weights and not yet its optimizer.
    for stage, step in (("distil", 8), ("distil", 16), ("control", 4)):
        stopped = _stop(toy, run, stage, step, signal.SIGKILL, "_save_optimizer_and_scheduler")
        assert stopped.returncode == -signal.SIGKILL
        assert (run / stage / "seed-0" / "checkpoints" / f"checkpoint-{step}" / "model.safetensors").is_file()
    assert "control/seed-0: goes on" in _finish(toy, run)
    assert _results(run) == _results(whole)
    assert _attempts(run, "distil/seed-0") == 3
    assert _attempts(run, "control/seed-0") == 2


@pytest.mark.parametrize("module", ["pydantic", "potstill.recipe.load", "torch", "transformers.trainer"])
def test_ctrl_c_while_libraries_are_imported(toy, tmp_path, module):
    stopped = _from_the_start(toy, tmp_path / "run", "-c", INTERRUPT_AN_IMPORT, module)
    assert stopped.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in stopped.stderr


def test_a_scheduler_s_term_leaves_a_checkpoint(toy, tmp_path):
    run = tmp_path / "run"
    assert _stop(toy, run, "distil", 8, signal.SIGTERM).returncode == 130
    steps = [int(path.name.split("-")[1]) for path in (run / "distil/seed-0/checkpoints").glob("checkpoint-*")]
    assert 9 in steps, "a step that would not have been saved"


def test_done_is_done(toy, whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    done = _from_the_start(toy, whole, "-X", "importtime", "-m", "potstill")
    assert done.returncode == 0
    *lines, last = done.stdout.splitlines()
    assert last.startswith("the report: ")
    assert len(lines) == 8
    assert all(": done before, in" in line for line in lines)
    assert "potstill.pipeline.runner" in _imported(done)
    assert not _imported(done) & HEAVY
    made = {path: before[path] for path in before if path.name not in WRITTEN_ANEW}
    assert made == {path: path.stat().st_mtime_ns for path in made}


@pytest.mark.parametrize("verb", ["status", "compare", "check"])
def test_a_look_at_a_run_imports_no_heavy_library(whole, verb):
    command = [sys.executable, "-X", "importtime", "-m", "potstill", verb, str(whole)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "potstill.pipeline.run_folder" in _imported(done)
    assert not _imported(done) & HEAVY


def _imported(done):
    """The modules that a process with `-X importtime` imported."""
    lines = done.stderr.splitlines()
    return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}


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
def test_a_changed_key_runs_what_depends_on_it(toy_run, tmp_path, change, again):
    overrides, finished = toy_run
    run = shutil.copytree(finished, tmp_path / "run", symlinks=True)
    before = {str(path.relative_to(run).parent): path.stat().st_mtime_ns for path in _manifests(run)}
    run_recipe(load_recipe("quickstart", [*overrides, change]), Run(run))
    after = {str(path.relative_to(run).parent): path.stat().st_mtime_ns for path in _manifests(run)}
    assert {name for name in after if after[name] != before.get(name)} == again
    moved = {path.name for path in (run / "replaced").glob("*")}
    assert {name.rsplit("-", 2)[0] for name in moved} == {name.replace("/", "-") for name in again & before.keys()}
    assert all((run / "replaced" / name / "manifest.json").is_file() for name in moved)


def test_what_was_changed_back_runs_again(toy_run, tmp_path):
    overrides, finished = toy_run
    run = shutil.copytree(finished, tmp_path / "run", symlinks=True)
    results = outputs(Run(run))
    run_recipe(load_recipe("quickstart", [*overrides, "capture.k=32"]), Run(run), until="capture")
    assert outputs(Run(run)) != results
    run_recipe(load_recipe("quickstart", overrides), Run(run))
    assert outputs(Run(run)) == results


def _manifests(run):
    return [*run.glob("[!r]*/manifest.json"), *run.glob("report/manifest.json"), *run.glob("*/seed-*/manifest.json")]


@pytest.fixture(scope="module")
def toy_run(short_texts, equal_charts_are_drawn_once, tmp_path_factory):
    """What makes a toy of quickstart, and a finished run of it. Each test changes a copy."""
    folder = tmp_path_factory.mktemp("changed")
    overrides = toy_overrides("quickstart", folder)
    run_recipe(load_recipe("quickstart", overrides), Run(folder / "run"))
    return overrides, folder / "run"
