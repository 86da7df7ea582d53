"""Check: every output of every finished step, read again."""

import os
import shutil

import pytest

import fake_stages
import minimal
from fake_stages import ALL
from potstill.cli.check import check, finished_steps
from potstill.errors import UserError
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from run_outputs import outputs
from tiny import toy_recipe


@pytest.fixture
def do(tmp_path, monkeypatch):
    stages = fake_stages.install(monkeypatch)
    minimal.inputs(tmp_path)
    monkeypatch.chdir(tmp_path)

    def run(*overrides):
        run_recipe(minimal.recipe(tmp_path, *overrides), Run("run"))
        return stages.forget()

    return run


def _flip(file):
    """Flip a bit in the middle, and keep the size and the time."""
    content, status = bytearray(file.read_bytes()), file.stat()
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(UserError, match=r"is no run folder; `potstill run RECIPE` makes one"):
        list(check(tmp_path))


def test_a_whole_run_has_a_line_for_each_step(do, tmp_path):
    do()
    lines = [step.line() for step in check(tmp_path / "run")]
    assert lines == [f"{name}: whole, 1 file" for name in ALL]


def test_steps_that_the_recipe_no_longer_has_are_checked_and_replaced_ones_are_not(do, tmp_path):
    do("seeds=[0, 1]")
    do("student.layers=1")
    assert (tmp_path / "run" / "replaced").is_dir()
    found = finished_steps(tmp_path / "run")
    assert set(found) == {*ALL, "distil/seed-1", "control/seed-1"}
    assert [step for step in found if step in ALL] == ALL


def test_damage_and_what_is_missing_is_named(do, tmp_path):
    do()
    _flip(tmp_path / "run/corpus/made/line.txt")
    (tmp_path / "run/student/made/line.txt").unlink()
    (tmp_path / "run/capture/manifest.json").write_text("{")
    (tmp_path / "run/report/manifest.json").write_text("null")
    _flip(tmp_path / "run/recipe.json")
    lines = [step.line() for step in check(tmp_path / "run")]
    assert "recipe.json: recipe.json is damaged" in lines
    assert "report: manifest.json is damaged" in lines
    assert "corpus: made/line.txt is damaged" in lines
    assert "student: made/line.txt is missing" in lines
    assert "capture: manifest.json is damaged" in lines
    assert sum("whole" in line for line in lines) == len(ALL) - 4


@pytest.fixture(scope="module")
def whole(short_texts, equal_charts_are_drawn_once, tmp_path_factory):
    """A toy run with every output, its recipe, and the bytes of all outputs."""
    folder = tmp_path_factory.mktemp("whole")
    recipe, run = toy_recipe(folder), Run(folder / "run")
    run_recipe(recipe, run)
    return recipe, run


def test_every_kind_of_output_is_found_damaged_and_made_again_to_the_same_bytes(whole, tmp_path, capsys):
    recipe, original = whole
    expected = outputs(original)
    every = [(step, name) for step in finished_steps(original.folder) for name in original.manifest(step)["outputs"]]
    kinds = {(step.partition("/")[0], name.rpartition(".")[2]): (step, name) for step, name in every}
    for number, (step, name) in enumerate(kinds.values()):
        run = Run(shutil.copytree(original.folder, tmp_path / str(number), symlinks=True))
        assert not any(one.damaged for one in check(run.folder))
        _flip(run.path(step) / name)
        assert {one.name: one.damaged for one in check(run.folder) if one.damaged} == {step: {name: "damaged"}}
        capsys.readouterr()
        run_recipe(recipe, run)
        assert f"{step}: its output {name} is damaged, so it begins anew" in capsys.readouterr().out
        assert outputs(run) == expected, (step, name)
