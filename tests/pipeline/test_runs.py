"""Runs: one summary for each folder, whatever is in it."""

import subprocess
import sys

import pytest

import minimal
from potstill.errors import UserError
from potstill.files.atomic import write_json
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.pipeline.runs import COMPARISON, runs_in


@pytest.fixture
def do(tmp_path, monkeypatch, stages):
    minimal.inputs(tmp_path)
    monkeypatch.chdir(tmp_path)

    def run(name, *overrides, **how):
        found = Run(tmp_path / "runs" / name)
        run_recipe(minimal.recipe(tmp_path, *overrides), found, **how)
        return found

    return run


def _only(tmp_path):
    (found,) = runs_in(tmp_path / "runs")
    return found


def test_a_finished_run_has_its_verdict(do, tmp_path):
    run = do("a")
    write_json(run.path("report") / COMPARISON, {"verdict": {"headline": "Distillation helped."}})
    found = _only(tmp_path)
    assert (found.name, found.verdict, found.student) == ("a", "Distillation helped", "prune layers")
    assert found.bytes == sum(file.stat().st_size for file in run.folder.rglob("*") if file.is_file())


def test_the_folder_of_one_run_is_that_run(do, tmp_path):
    do("a")
    assert [one.name for one in runs_in(tmp_path / "runs" / "a")] == ["a"]


def test_what_is_left_is_said(do, stages, tmp_path):
    do("a", until="student")
    assert _only(tmp_path).verdict == "not finished: next is capture"

    def stop(work):
        raise KeyboardInterrupt

    stages.during["capture"] = stop
    with pytest.raises(KeyboardInterrupt):
        do("a")
    assert _only(tmp_path).verdict == "stopped in capture"


def test_a_file_with_two_names_counts_once(do, tmp_path):
    run = do("a")
    before = _only(tmp_path).bytes
    (run.folder / "again.json").hardlink_to(run.folder / "recipe.json")
    assert _only(tmp_path).bytes == before


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("recipe.json", b"{", "broken: .*recipe.json is damaged"),
        ("recipe.json", b"[]", "broken: .*not as the run wrote it"),
        ("recipe.json", b"\xff\xfe\x00", "broken: "),
        ("recipe.json", None, "no run folder: it has no recipe.json"),
        ("student/manifest.json", b"{}", "broken: .*manifest.json is damaged"),
        ("student/manifest.json", b"\x00", "broken: .*manifest.json is damaged"),
        ("report/comparison.json", b"[]", "broken: a file has other content than it should"),
        ("report/comparison.json", b'{"verdict": null}', "broken: a file has other content than it should"),
        ("report/comparison.json", b"{", "broken: .*comparison.json is damaged"),
        ("report/comparison.json", None, "its report has no figures"),
    ],
)
def test_a_broken_folder_has_one_line_beside_a_whole_one(do, tmp_path, file, content, told):
    import re

    run = do("a")
    write_json(run.path("report") / COMPARISON, {"verdict": {"headline": "Distillation helped."}})
    other = do("b")
    write_json(other.path("report") / COMPARISON, {"verdict": {"headline": "Distillation helped."}})
    (run.folder / file).unlink()
    if content is not None:
        (run.folder / file).write_bytes(content)
    broken, whole = runs_in(tmp_path / "runs")
    assert re.match(told, broken.verdict), broken.verdict
    assert whole.verdict == "Distillation helped"


def test_other_folders_and_files_are_said_or_left_out(tmp_path):
    (tmp_path / "runs" / "photos").mkdir(parents=True)
    (tmp_path / "runs" / ".hidden").mkdir()
    (tmp_path / "runs" / "note.txt").write_text("no run")
    found = _only(tmp_path)
    assert (found.name, found.verdict) == ("photos", "no run folder: it has no recipe.json")


@pytest.mark.parametrize("name", ["nowhere", "note.txt"])
def test_no_such_folder(tmp_path, name):
    (tmp_path / "note.txt").write_text("no folder")
    with pytest.raises(UserError, match=r"cannot be read .*; name a folder with run folders"):
        runs_in(tmp_path / name)


def test_it_imports_nothing_heavy():
    code = (
        "import sys; from potstill.cli import runs, clean; print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
