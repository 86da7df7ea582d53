"""Clean: what is shown, the question, and what is left."""

import builtins
import sys
from types import SimpleNamespace

import pytest
from filelock import FileLock

import fake_stages
import minimal
from potstill.cli.check import check
from potstill.cli.clean import clean_run
from potstill.errors import UserError
from potstill.pipeline.run_folder import LOCK, Run
from potstill.pipeline.runner import run_recipe


@pytest.fixture
def run(tmp_path, monkeypatch):
    fake_stages.install(monkeypatch)
    minimal.inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = Run(tmp_path / "run")
    run_recipe(minimal.recipe(tmp_path), found)
    return found


@pytest.fixture
def answers(monkeypatch):
    def answer(said):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))

        def read(question):
            if said is None:
                raise EOFError
            return said

        monkeypatch.setattr(builtins, "input", read)

    return answer


@pytest.mark.parametrize(("said", "removed"), [("y", True), ("YES ", True), ("", False), ("n", False), (None, False)])
def test_it_asks_first(run, answers, capsys, said, removed):
    answers(said)
    told = clean_run(run.folder, yes=False)
    shown = capsys.readouterr().out
    assert shown.splitlines()[0].split() == ["where", "what", "files", "size", "to", "make", "it", "again"]
    assert "captured targets" in shown
    assert (run.path("capture") / "made").exists() != removed
    assert told == ("64 B removed; the student, the figures and the logs stay" if removed else "nothing was removed")


def test_without_a_terminal_it_needs_yes(run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    with pytest.raises(UserError, match="nobody can answer here; add `--yes`"):
        clean_run(run.folder, yes=False)
    assert (run.path("capture") / "made").exists()
    clean_run(run.folder, yes=True)
    assert clean_run(run.folder, yes=True).endswith("has nothing that can be removed and made again")


def test_check_says_what_was_removed_and_finds_no_damage(run):
    clean_run(run.folder, yes=True)
    (capture,) = [step for step in check(run.folder) if step.name == "capture"]
    assert capture.line() == "capture: whole, 0 files; `potstill clean` removed 1"
    assert not any(step.damaged for step in check(run.folder))


def test_a_run_at_work_is_left_alone(run):
    with FileLock(run.folder / LOCK), pytest.raises(UserError, match="another process is at work"):
        clean_run(run.folder, yes=True)
    assert (run.path("capture") / "made").exists()


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="is no run folder"):
        clean_run(tmp_path, yes=True)
    assert not list(tmp_path.iterdir())
