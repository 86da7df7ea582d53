"""The run folder: three states of a step, nothing half written, nothing deleted."""

import json
import subprocess
import sys

import pytest

from potstill.errors import UserError
from potstill.pipeline import manifest as manifest_module
from potstill.pipeline import run_folder as run_module
from potstill.pipeline.run_folder import Run
from potstill.recipe.step import Step

STEP = Step("distil", 1)
COST = {"seconds": 2.0}


def begun(run, inputs="a"):
    return run.begin(STEP, {"of": inputs}, {"about": "x"})


def finished(run, inputs="a", text="made"):
    begun(run, inputs)
    made = run.path(STEP) / "student"
    made.mkdir(exist_ok=True)
    (made / "weights.bin").write_text(text)
    run.finish(STEP, COST, [made], {"steps": 3})


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


def test_a_step_has_one_name_and_one_folder(run):
    assert str(STEP) == "distil/seed-1"
    assert run.path(STEP) == run.folder / "distil" / "seed-1"
    assert str(Step("corpus")) == "corpus"


def test_a_step_is_absent_then_begun_then_done(run):
    assert run.earlier(STEP) is run.manifest(STEP) is run.unfinished(STEP) is None
    begun(run)
    assert run.manifest(STEP) is None
    assert run.unfinished(STEP)["attempts"] == 1
    finished(run)
    assert run.unfinished(STEP) is None
    manifest = run.manifest(STEP)
    assert manifest["step"] == "distil/seed-1"
    assert manifest["inputs"] == {"of": "a"}
    assert manifest["cost"] == COST
    assert manifest["summary"] == {"steps": 3}
    assert manifest["recipe"] == {"about": "x"}
    assert manifest["attempts"] == 2
    assert {"python", "potstill", "torch", "transformers"} <= set(manifest["versions"])
    assert manifest["host"]["cpus"] > 0
    assert manifest["started"] <= manifest["finished"]


def test_a_stopped_attempt_with_the_same_inputs_goes_on(run):
    begun(run)
    (run.path(STEP) / "half").write_text("work")
    run.spend(STEP, COST)
    state = begun(run)
    assert (state["attempts"], state["cost"]) == (2, COST)
    assert (run.path(STEP) / "half").read_text() == "work"


def test_the_recipe_of_the_last_attempt_is_the_one_that_is_kept(run):
    begun(run)
    run.begin(STEP, {"of": "a"}, {"about": "another word for the same"})
    assert run.unfinished(STEP)["recipe"] == {"about": "another word for the same"}


@pytest.mark.parametrize("before", ["stopped", "done", "unknown"])
def test_what_is_there_already_is_moved_and_never_deleted(run, before):
    if before == "done":
        finished(run, inputs="old")
    elif before == "stopped":
        begun(run, inputs="old")
    run.path(STEP).mkdir(parents=True, exist_ok=True)
    (run.path(STEP) / "days.bin").write_text("of work")
    state = begun(run, inputs="new")
    assert (state["attempts"], state["cost"]) == (1, None)
    assert [file.name for file in run.path(STEP).iterdir()] == ["unfinished.json"]
    (aside,) = (run.folder / "replaced").iterdir()
    assert aside.name.startswith("distil-seed-1-")
    assert (aside / "days.bin").read_text() == "of work"


def test_two_things_that_are_replaced_in_one_second_are_both_kept(run, monkeypatch):
    monkeypatch.setattr(run_module.time, "strftime", lambda *_: "now")
    for text in ("one", "two", "three"):
        finished(run, text=text)
    kept = {file.read_text() for file in (run.folder / "replaced").rglob("weights.bin")}
    assert kept == {"one", "two"}
    assert run.replace(Step("corpus")) is None


def test_a_kill_while_a_manifest_is_written_leaves_a_step_that_goes_on(run, monkeypatch):
    begun(run)
    run.spend(STEP, COST)
    write = manifest_module.write_json

    def killed(file, value):
        if file.name == "manifest.json":
            raise KeyboardInterrupt
        write(file, value)

    monkeypatch.setattr(manifest_module, "write_sealed", killed)
    with pytest.raises(KeyboardInterrupt):
        run.finish(STEP, COST, [], {})
    monkeypatch.undo()
    assert run.manifest(STEP) is None
    assert begun(run)["cost"] == COST


def test_a_kill_right_after_the_manifest_leaves_a_step_that_is_done(run, monkeypatch):
    unlink = run_module.Path.unlink

    def killed(file, **how):
        if file.name == "unfinished.json":
            raise KeyboardInterrupt
        unlink(file, **how)

    monkeypatch.setattr(run_module.Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        finished(run)
    monkeypatch.undo()
    assert run.manifest(STEP)["summary"] == {"steps": 3}
    # Where its outputs are lost later, that old attempt is no attempt to go on with.
    (run.path(STEP) / "student" / "weights.bin").unlink()
    assert begun(run)["attempts"] == 1
    assert run.earlier(STEP)["attempts"] == 1
    assert "finished" not in run.earlier(STEP)


def test_a_stage_cannot_claim_what_it_did_not_make(run):
    begun(run)
    with pytest.raises(AssertionError, match="nowhere, which does not exist"):
        run.finish(STEP, COST, [run.path(STEP) / "nowhere"], {})
    assert run.manifest(STEP) is None


def test_a_run_remembers_what_it_was_last_asked_for(run):
    assert run.recipe() is None
    for about in ("one", "two"):
        with run.open({"about": about}):
            pass
    assert run.recipe() == {"about": "two"}
    assert json.loads((run.folder / "recipe.json").read_text()) == {"about": "two"}


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with (
        pytest.raises(
            UserError, match=r"run folder .*file/run cannot be written \(not a directory\); name another `--run-dir`"
        ),
        Run(tmp_path / "file" / "run").open({}),
    ):
        pass


HOLD = """
import sys
from potstill.pipeline.run_folder import Run
with Run(sys.argv[1]).open({"about": "the first"}):
    print("in", flush=True)
    sys.stdin.read()
"""


def test_two_processes_do_not_work_in_one_folder(run):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "in\n"
        with (
            pytest.raises(
                UserError, match=r"another process is at work in .*; wait until it has ended, or name another"
            ),
            run.open({"about": "the second"}),
        ):
            pass
        assert run.recipe() == {"about": "the first"}
    finally:
        other.kill()
        other.wait()
    with run.open({"about": "after a kill"}):
        assert run.recipe() == {"about": "after a kill"}
