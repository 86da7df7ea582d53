"""Status: the state, duration and size of each step of a run."""

import pytest

import minimal
from potstill.errors import UserError
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.pipeline.status import describe


@pytest.fixture
def do(tmp_path, monkeypatch, stages):
    minimal.inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    return lambda *overrides, **how: run_recipe(minimal.recipe(tmp_path, *overrides), Run("run"), **how)


def states(run):
    """The state of each step."""
    return {line[:16].strip(): line[17:37].strip() for line in describe(run.folder).splitlines()[:-2]}


def test_a_whole_run(do):
    do()
    assert set(states(Run("run")).values()) == {"done"}
    *_, total, number_format = describe(Run("run").folder).splitlines()
    assert total.split() == ["in", "all", "8.0", "s"]
    assert number_format == "number format: fp32, as the recipe says"


def test_each_line_says_how_long_it_took_and_what_it_weighs(do):
    do()
    line = describe(Run("run").folder).splitlines()[4]
    assert line.split() == ["distil/seed-0", "done", "1.0", "s", "64", "B"]


def test_what_is_left_what_was_stopped_and_what_it_cost(do, stages):
    def stop(work):
        raise KeyboardInterrupt

    stages.during["corpus"] = stop
    with pytest.raises(KeyboardInterrupt):
        do()
    found = states(Run("run"))
    assert list(found.values()) == ["done", "stopped midway"] + ["left"] * 6
    assert describe(Run("run").folder).splitlines()[1].split()[-2:] == ["1.0", "s"]
    assert describe(Run("run").folder).splitlines()[-2].split()[-2:] == ["2.0", "s"]


def test_a_changed_file_and_all_that_waits_for_it(do, tmp_path):
    do()
    (tmp_path / "text.txt").write_text("Twice upon a time.")
    found = states(Run("run"))
    assert found["corpus"] == "inputs changed"
    assert found["teachers"] == "done"
    assert found["student"] == found["capture"] == found["control/seed-0"] == "waits for corpus"


def test_a_missing_file_and_a_missing_output(do, tmp_path):
    do()
    (tmp_path / "text.txt").unlink()
    (tmp_path / "run/student/made/line.txt").unlink()
    found = states(Run("run"))
    assert found["corpus"] == "inputs missing"
    assert found["student"] == "incomplete"


def test_it_is_measured_against_what_was_last_asked_for_even_if_that_did_nothing(do):
    do()
    do("seeds=[0, 1]", until="corpus")
    assert states(Run("run"))["distil/seed-1"] == "left"


def test_a_damaged_number_format_is_said_once_and_nothing_is_written(do, tmp_path, capsys):
    do("precision=auto")
    file = tmp_path / "run" / "precision.json"
    file.write_text("{")
    capsys.readouterr()
    assert set(states(Run("run")).values()) == {"done"}
    assert capsys.readouterr().out.count("precision.json is not as it was written") == 1
    assert file.read_text() == "{"


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(UserError, match=r"is no run folder; `potstill run RECIPE` makes one under runs/"):
        describe(tmp_path)


def test_a_run_of_another_version_is_said(do, tmp_path):
    do()
    (tmp_path / "run" / "recipe.json").write_text('{"about": "x", "forgotten": 1}')
    (tmp_path / "run" / ".recipe.json.sha256").unlink()
    with pytest.raises(UserError, match=r"this version of potstill cannot read its recipe\.json"):
        describe(Run("run").folder)
