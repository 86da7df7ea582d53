"""Faults of potstill: one sentence and a file for the user, whichever verb it is."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fake_stages
import minimal
from potstill.cli import faults
from potstill.errors import UserError
from potstill.pipeline.graph import STAGES
from potstill.pipeline.run_folder import Run

BUGS = (
    ZeroDivisionError("by zero"),
    KeyError("missing"),
    EOFError("ran out"),
    AssertionError(),
    RecursionError("deep"),
)


@pytest.fixture
def broken(call, monkeypatch, tmp_path):
    """A recipe whose corpus stage fails with the given error."""
    stages = fake_stages.install(monkeypatch)
    minimal.inputs(tmp_path)
    minimal.write(tmp_path)

    def fail_with(error):
        def fail(_):
            raise error

        stages.during["corpus"] = fail

    return fail_with


def the_details(told, folder):
    """The text of the one file in a folder, which the sentence names."""
    (file,) = folder.glob("*.txt")
    assert file.name in told
    return file.read_text()


def is_one_sentence(told):
    return told.startswith("potstill: ") and told.endswith("\n") and told.count("\n") == 1


@pytest.mark.parametrize("error", BUGS, ids=repr)
def test_a_fault_in_a_stage_is_a_sentence_and_a_file_in_the_run_folder(call, broken, error, tmp_path):
    broken(error)
    code, _, told = call("run", "recipe.yaml")
    assert code == 70
    assert is_one_sentence(told)
    assert "the same command goes on where it stopped" in told
    details = the_details(told, tmp_path / "runs" / "recipe" / "errors")
    assert details.startswith("potstill run recipe.yaml\npotstill ")
    assert "Traceback" in details
    assert type(error).__name__ in details


def test_the_same_command_goes_on_after_a_fault(call, broken):
    broken(BUGS[0])
    call("run", "recipe.yaml")
    broken(UserError("no"))
    assert call("run", "recipe.yaml")[0] == 2


def test_every_fault_keeps_its_own_file(call, broken, tmp_path):
    broken(BUGS[0])
    for _ in range(3):
        call("run", "recipe.yaml")
    assert len([*(tmp_path / "runs" / "recipe" / "errors").iterdir()]) == 3


IN_A_RUN = {
    **{stage.name: ("potstill.pipeline.runner.run_recipe", [stage.name, "quickstart"]) for stage in STAGES},
    "run": ("potstill.pipeline.runner.run_recipe", ["run", "quickstart"]),
    "estimate": ("potstill.cli.plan.forecast_capture", ["capture", "quickstart", "--estimate"]),
    "snapshots": ("potstill.evaluation.snapshot_curves.measure", ["evaluate", "runs/quickstart", "--snapshots", "all"]),
    "check": ("potstill.cli.check.check", ["check", "runs/quickstart"]),
    "status": ("potstill.pipeline.status.describe", ["status", "runs/quickstart"]),
    "compare": ("potstill.cli.compare.comparison", ["compare", "runs/quickstart", "runs/other"]),
    "review": ("potstill.cli.review.review", ["review", "runs/quickstart"]),
    "export": ("potstill.cli.review.export", ["review", "runs/quickstart", "--export", "x.csv"]),
}
ELSEWHERE = {
    "targets": ("potstill.evaluation.inspect_targets.inspect", ["targets", "store"]),
    "recipes": ("potstill.recipe.shipped_recipes", ["recipes"]),
    "init": ("potstill.recipe.read_recipe_text", ["init", "x.yaml"]),
    "show": ("potstill.recipe.load_recipe", ["show", "quickstart"]),
    "schema": ("potstill.recipe.Recipe.model_json_schema", ["schema"]),
}


def raises(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize("verb", [*IN_A_RUN, *ELSEWHERE])
def test_no_verb_shows_a_traceback(call, monkeypatch, tmp_path, verb):
    place, arguments = {**IN_A_RUN, **ELSEWHERE}[verb]
    monkeypatch.setattr(place, raises(KeyError("what")))
    folder = tmp_path / "runs" / "quickstart"
    folder.mkdir(parents=True)
    code, out, told = call(*arguments)
    assert (code, out) == (70, "")
    assert is_one_sentence(told)
    assert "KeyError: 'what'" in the_details(told, folder / "errors" if verb in IN_A_RUN else tmp_path)


def test_debug_shows_the_traceback_of_a_fault_and_writes_nothing(call, broken, tmp_path):
    broken(ZeroDivisionError("by zero"))
    code, _, told = call("run", "recipe.yaml", "--debug")
    assert code == 1
    assert told.startswith("Traceback")
    assert told.endswith("ZeroDivisionError: by zero\n")
    assert "FaultError" not in told
    assert not (tmp_path / "runs" / "recipe" / "errors").exists()


@pytest.fixture
def no_place(monkeypatch):
    """No file can be written in the places whose names contain one of these words."""
    from potstill.files import atomic

    plain, full = atomic.write_text, []

    def write_text(file, text):
        if any(word in str(file.absolute()) for word in full):
            raise OSError(errno.ENOSPC, "no space left on device", str(file))
        plain(file, text)

    monkeypatch.setattr(atomic, "write_text", write_text)
    return full.extend


def test_the_details_go_where_they_can_be_written(no_place, monkeypatch, tmp_path, capsys):
    run, here, temporary = (tmp_path / name for name in ("run", "here", "temporary"))
    for folder in (run, here, temporary):
        folder.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(faults.tempfile, "gettempdir", lambda: str(temporary))
    for word, folder in (("nothing", run / "errors"), ("run/errors", here), ("/here/", temporary)):
        no_place([word])
        fault = faults.FaultError(run)
        fault.__cause__ = ValueError("x")
        assert faults.report(fault, ["run", "x"], debug=False) == 70
        the_details(capsys.readouterr().err, folder)
    no_place(["/temporary/"])
    assert faults.report(ValueError("x"), ["run", "x"], debug=False) == 70
    assert "could not be written, and `--debug` shows them" in capsys.readouterr().err


def test_the_details_repeat_no_secret(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    faults.report(ValueError("x"), ["run", "x", "--set", "distil.training.hub_token=SECRET"], debug=False)
    (file,) = tmp_path.glob("*.txt")
    assert "hub_token=..." in file.read_text()
    assert "SECRET" not in file.read_text()


def test_another_rank_says_the_sentence_not_again(call, broken, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.chdir(tmp_path)
    assert faults.report(ValueError("x"), ["run", "x"], debug=False) == 70
    told = capsys.readouterr().err
    assert told.startswith("potstill: rank 3: the details are in ")
    assert "fault of potstill" not in told
    assert "-rank3.txt" in told


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 1 GiB"), "out of memory"),
        (OSError(errno.ENOSPC, "No space left on device", "x.bin"), "x.bin cannot be read or written (no space"),
        (
            PermissionError(errno.EACCES, "Permission denied", "run/a.json"),
            "run/a.json cannot be read or written (perm",
        ),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), "the package torch cannot be imported"),
    ],
)
def test_a_failure_of_the_machine_is_not_called_a_fault(call, monkeypatch, tmp_path, error, said):
    monkeypatch.setattr("potstill.pipeline.status.describe", raises(error))
    code, _, told = call("status", "run")
    assert code == 2
    assert is_one_sentence(told)
    assert said in told
    assert list(tmp_path.iterdir()) == []


def test_an_import_that_fails_inside_potstill_is_a_fault(call, monkeypatch):
    monkeypatch.setattr("potstill.pipeline.status.describe", raises(ImportError("x", name="potstill.recipe")))
    assert call("status", "run")[0] == 70


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit(5)])
def test_ctrl_c_and_exits_stay_what_they_are(call, broken, end, tmp_path):
    broken(end)
    code, _, told = call("run", "recipe.yaml")
    assert code == (5 if isinstance(end, SystemExit) else 130)
    assert "fault" not in told
    assert not (tmp_path / "runs" / "recipe" / "errors").exists()


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["show", "quickstart"], ["schema"], ["recipes"], ["--help"], ["status", "run"]])
def test_a_reader_that_has_enough_is_no_fault(tmp_path, arguments, unbuffered):
    with Run(tmp_path / "run").open(minimal.recipe(tmp_path).model_dump(mode="json", by_alias=True)):
        pass
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as out:  # noqa: PTH123 (a pipe has no path)
        ended = subprocess.run(
            [sys.executable, "-m", "potstill", *arguments],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
    assert ended.stderr == ""
    assert [file.name for file in Path(tmp_path).glob("*.txt")] == []


def test_a_broken_pipe_inside_a_run_is_a_fault(call, broken):
    broken(BrokenPipeError(errno.EPIPE, "a worker died"))
    code, _, told = call("run", "recipe.yaml")
    assert code == 70
    assert "BrokenPipeError" in told


@pytest.mark.parametrize(("rank", "waits"), [("0", []), ("1", [5]), ("3", [15]), ("1000", [60])])
def test_a_users_mistake_is_said_by_the_first_rank_that_meets_it(call, broken, monkeypatch, rank, waits):
    slept = []
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(faults.time, "sleep", slept.append)
    assert call("show", "nothing")[0] == 2
    assert slept == waits
