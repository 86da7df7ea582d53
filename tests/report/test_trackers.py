"""What trackers call each training, and the verdict that they get at the end."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from potstill.report import trackers
from potstill.report.trackers import VERDICT, TrackedRun, tell_verdict, tracked_run


@pytest.mark.parametrize(
    ("step", "training", "project", "name"),
    [
        ("distil/seed-0", {}, "quickstart", "quickstart-student-seed-0"),
        ("distil/base/seed-1", {}, "quickstart", "quickstart-student-base-seed-1"),
        ("control/seed-0", {}, "quickstart", "quickstart-control-seed-0"),
        ("pretrain/distil", {}, "quickstart", "quickstart-pretrain-distil"),
        ("search/trial-3", {}, "quickstart", "quickstart-search-trial-3"),
        ("control/seed-0", {"project": "mine", "run_name": "try"}, "mine", "try-control-seed-0"),
    ],
)
def test_a_run_folder_is_a_project_and_each_training_a_run(tmp_path, monkeypatch, step, training, project, name):
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    root = tmp_path / "quickstart"
    found = tracked_run(root, root / step, training)
    assert (found.project, found.name) == (project, name)
    assert found.tensorboard.is_relative_to(root)
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    assert tracked_run(root, root / step, training).tensorboard.parent == tmp_path / "logs"


def test_no_two_steps_share_a_run(tmp_path):
    steps = ["distil/seed-0", "distil/a/seed-0", "control/seed-0", "control/seed-1", VERDICT]
    runs = [tracked_run(tmp_path, tmp_path / step, {"run_name": "x"}) for step in steps]
    assert len({one.name for one in runs}) == len({one.tensorboard for one in runs}) == len(steps)


@pytest.fixture
def told(monkeypatch):
    """What each tracker was told."""
    found = {}

    def teller(name):
        return lambda run, text, figures: found.setdefault(name, (run, text, figures))

    monkeypatch.setattr(trackers, "TELL", {name: teller(name) for name in trackers.TELL})
    return found


RUN = TrackedRun("quickstart", "quickstart-verdict", Path("nowhere"))


def test_the_trackers_of_the_recipe_get_verdict_and_figures(examples, told):
    report = examples["one seed"]()
    tell_verdict(["trackio", "mlflow"], RUN, report)
    ((name, (run, text, figures)),) = told.items()
    assert (name, run) == ("trackio", RUN)
    assert text.startswith("Distillation helped.\n\nOn 304")
    assert figures["loss/control"] == next(
        row.value for row in report.rows if (row.model, row.metric) == ("control", "loss")
    )
    assert len(figures) == len(report.rows)


def test_all_are_those_that_are_installed(examples, told, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: SimpleNamespace() if name == "tensorboardX" else None)
    tell_verdict(["all"], RUN, examples["one seed"]())
    assert list(told) == ["tensorboard"]


def test_without_a_tracker_nothing_is_told(examples, told):
    tell_verdict([], RUN, examples["one seed"]())
    assert told == {}


def test_a_tracker_that_fails_is_named_and_the_others_are_told(examples, told, monkeypatch, capsys):
    def fail(run, text, figures):
        raise ConnectionError("no route")

    monkeypatch.setitem(trackers.TELL, "trackio", fail)
    tell_verdict(["trackio", "wandb"], RUN, examples["one seed"]())
    assert list(told) == ["wandb"]
    assert "trackio did not take the verdict (no route)" in capsys.readouterr().out
