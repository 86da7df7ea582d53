"""Snapshot curves: measured afterwards or as snapshots appear, beside teachers and start, and never twice."""

import json
import shutil

import pytest

from potstill.errors import UserError
from potstill.evaluation import snapshot_curves, snapshot_scores
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.training.snapshots import snapshot_folder
from tiny import save_pairs, toy_recipe

GIVEN = ("corpus.validation=6", "distil.training.max_steps=8", "distil.snapshots=4")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Many tests read it: none may write into it."""
    folder = tmp_path_factory.mktemp("trajectories")
    pairs = {"toy": {"path": str(save_pairs(folder / "pairs")), "start": "none"}}
    run = Run(folder / "run")
    run_recipe(toy_recipe(folder, *GIVEN, f"evaluate.minimal_pairs={json.dumps(pairs)}"), run, until="evaluate")
    return run


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "run", symlinks=True)
    return Run(tmp_path / "run")


@pytest.fixture
def scored(monkeypatch):
    """The calls of functions that run a model."""
    calls = []
    for name in ("score_answers", "score_pairs"):
        plain = getattr(snapshot_scores, name)
        monkeypatch.setattr(snapshot_scores, name, lambda *given, plain=plain: calls.append(given) or plain(*given))
    return calls


def _figures(rows, model, metric="loss", split="reporting"):
    return {
        (row["seed"], row["step"]): row
        for row in rows
        if (row["model"], row["metric"], row["split"]) == (model, metric, split)
    }


def test_every_snapshot_has_its_company_and_the_last_has_the_students_own_figures(run):
    rows = snapshot_curves.measure(run.folder, "all")
    for model in ("student", "control"):
        for split in ("selection", "reporting"):
            assert list(_figures(rows, model, split=split)) == [(0, 2), (0, 4), (0, 6), (0, 8)]
    table = json.loads((run.path("evaluate") / "comparison.json").read_text())["rows"]
    for row in table:
        if row["metric"] in ("loss", "toy"):
            step = {"start": (None, 0), "teacher": (None, None)}.get(row["model"], (0, 8))
            found = _figures(rows, row["model"], row["metric"])[step]
            assert found["value"] == pytest.approx(row["value"], rel=1e-6)
            assert found["n"] == row["n"]
            assert found["low"] <= found["value"] <= found["high"]
    assert json.loads((run.folder / "snapshots" / "curves.json").read_text())["rows"] == rows


def test_what_is_known_is_not_measured_again_and_a_copy_is_known(run, scored):
    snapshot_curves.measure(run.folder, "every:2")
    # Teacher, start, and steps 4 and 8 of both: on two splits of the text, and on pairs. 8 is the last of each.
    assert len(scored) == 3 * (2 + 2 * 2)
    snapshot_curves.measure(run.folder, "all")
    assert len(scored) == 3 * (2 + 2 * 4), "only the two that were left out before"
    shutil.rmtree(snapshot_folder(run.path("distil/seed-0"), 2))
    shutil.copytree(snapshot_folder(run.path("distil/seed-0"), 8), snapshot_folder(run.path("distil/seed-0"), 2))
    rows = snapshot_curves.measure(run.folder, "all")
    assert len(scored) == 3 * (2 + 2 * 4), "the same weights under another name"
    found = _figures(rows, "student")
    assert found[0, 2]["value"] == found[0, 8]["value"]


def test_what_was_stopped_goes_on(run, scored, monkeypatch):
    plain = snapshot_scores.score_answers
    with monkeypatch.context() as patch:

        def score_answers(*given):
            if len(scored) == 7:
                raise KeyboardInterrupt
            return plain(*given)

        patch.setattr(snapshot_scores, "score_answers", score_answers)
        with pytest.raises(KeyboardInterrupt):
            snapshot_curves.measure(run.folder, "all")
    snapshot_curves.measure(run.folder, "all")
    assert len(scored) == 3 * (2 + 2 * 4)


def test_other_settings_are_measured_anew(run, scored):
    snapshot_curves.measure(run.folder, "last:1")
    recipe = json.loads((run.folder / "recipe.json").read_text())
    before, recipe["evaluate"]["documents"] = len(scored), 5
    with run.open(recipe):
        pass
    rows = snapshot_curves.measure(run.folder, "last:1")
    assert len(scored) == before + 4, "held-out text alone, of teacher, start, student and control"
    assert _figures(rows, "student")[0, 8]["n"] == 5


def test_snapshots_are_measured_as_they_appear(tmp_path, monkeypatch):
    recipe, run = toy_recipe(tmp_path, *GIVEN, "control=null"), Run(tmp_path / "run")
    run_recipe(recipe, run, until="capture")
    run_recipe(recipe, run, until="student")
    assert not run.path("distil").exists()
    monkeypatch.setattr(snapshot_curves, "SECONDS_BETWEEN_LOOKS", 0.01)
    looks, plain = [], snapshot_curves.whole_snapshots

    def whole_snapshots(folder):
        found = plain(folder)
        looks.append([snapshot.step for snapshot in found])
        assert len(looks) < 10, "it should have ended with the training"
        if len(looks) == 2:
            half = snapshot_folder(folder, 2)
            half.mkdir(parents=True)
            (half / "config.json").write_text("{}")
        if len(looks) == 4:
            run_recipe(recipe, run, until="distil")
        return found

    monkeypatch.setattr(snapshot_curves, "whole_snapshots", whole_snapshots)
    rows = snapshot_curves.measure(run.folder, "all", watch=True)
    assert looks[:4] == [[]] * 4, "nothing, and then a folder that is half there"
    assert list(_figures(rows, "student")) == [(0, 2), (0, 4), (0, 6), (0, 8)]


def test_a_table_says_it_all(run):
    lines = snapshot_curves.curves_table(snapshot_curves.measure(run.folder, "4,8")).splitlines()
    assert "loss, validation" in lines[0]
    assert "loss, held out" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["teacher", "start", "student", "student", "control", "control"]


def test_where_there_is_nothing_to_measure_it_is_said(tmp_path, run):
    with pytest.raises(UserError, match="is no run folder"):
        snapshot_curves.measure(tmp_path, "all")
    with pytest.raises(UserError, match=r"step-3 is not there; there are the steps 2, 4, 6, 8"):
        snapshot_curves.measure(run.folder, "3")
    (snapshot_folder(run.path("distil/seed-0"), 4) / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"step-4 is not a whole model: it has no model.safetensors; name another one"):
        snapshot_curves.measure(run.folder, "4")
    recipe = json.loads((run.folder / "recipe.json").read_text())
    recipe["distil"]["snapshots"] = None
    with run.open(recipe):
        pass
    with pytest.raises(UserError, match=r"keeps no snapshots; say how many in its recipe, `distil.snapshots: 30`"):
        snapshot_curves.measure(run.folder, "all")
