"""`potstill plan --from`: the points of finished runs, and what cannot be compared."""

import json

import pytest

from potstill.cli.plan_from import plan_from
from potstill.errors import UserError
from potstill.pipeline.run_folder import Run
from potstill.recipe.step import SAVED_AS
from tiny import llama, save_model, toy_recipe


@pytest.fixture
def make_run(tmp_path, monkeypatch):
    """Writes what a finished run leaves, without its trainings."""
    monkeypatch.setattr(Run, "manifest", lambda run, step: read(run.path(step) / "manifest.json"))
    recipe = toy_recipe(tmp_path)

    def make(name, tokens, loss, text="0" * 64):
        folder = tmp_path / name
        save_model(llama(layers=1), folder / "student" / "start")
        (folder / SAVED_AS).write_text(json.dumps(recipe.model_dump(mode="json", by_alias=True)))
        write(
            folder / "corpus",
            {"outputs": {"held_out/data-0.arrow": {"sha256": text}, "train/x.arrow": {"sha256": name}}},
        )
        for stage in ("distil", "control"):
            write(folder / stage / "seed-0", {"summary": {"tokens": tokens, "steps": 10}})
        losses = {"teacher": 2.0, "start": 9.0, "student": loss - 0.1, "control": loss}
        rows = [{"model": model, "metric": "loss", "value": value} for model, value in losses.items()]
        write(folder / "evaluate", {"rows": rows}, "comparison.json")
        return folder

    return make


def read(file):
    return json.loads(file.read_text()) if file.is_file() else None


def write(folder, content, name="manifest.json"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def test_runs_of_several_lengths_give_a_law_of_students_and_of_controls(make_run):
    runs = [make_run(f"run-{at}", 1e6 * 2**at, 2.5 + 300 / (1e6 * 2**at) ** 0.4) for at in range(6)]
    said = plan_from(runs)
    assert "student: 6 trainings" in said
    assert "control: 6 trainings" in said
    assert "extrapolates: 2 times the most tokens that were measured" in said
    assert "Tokens that are read again teach less" in said
    assert "of what the student reaches alone" in said
    found = json.loads(plan_from(runs, as_json=True))
    assert found["laws"]["control"]["terms"] == ["tokens"]
    assert found["laws"]["control"]["constants"]["b"]["value"] == pytest.approx(0.4, rel=0.05)
    # One layer: all weights but those of tokens.
    body = llama(layers=1).num_parameters() - 2 * 300 * 32
    assert {point["parameters"] for point in found["laws"]["control"]["points"]} == {body}
    assert len(found["teachers"]) == 6


def test_snapshots_are_points_too(make_run):
    run = make_run("run", 1e6, 3.0)
    rows = [
        {"model": "control", "seed": 0, "step": step, "metric": "loss", "split": split, "value": 2.5 + 2 / step}
        for step in (1, 2, 4, 7, 10)
        for split in ("selection", "reporting")
    ]
    write(run / "snapshots", {"rows": rows}, "curves.json")
    found = json.loads(plan_from([run], as_json=True))
    assert [point["tokens"] for point in found["laws"]["control"]["points"]] == [1e6, 1e5, 2e5, 4e5, 7e5]


def test_what_cannot_be_compared_is_refused(make_run, tmp_path):
    one, other = make_run("one", 1e6, 3.0), make_run("other", 2e6, 2.9, text="1" * 64)
    with pytest.raises(UserError, match=r"measured other held-out text; fit runs of one text and one tokenizer"):
        plan_from([one, other])
    with pytest.raises(UserError, match="student: no law can be told from 1 training"):
        plan_from([one])
    (one / "evaluate" / "comparison.json").unlink()
    with pytest.raises(UserError, match="is not evaluated; run its recipe to the end"):
        plan_from([one])
    with pytest.raises(UserError, match="is no run whose corpus is done"):
        plan_from([tmp_path / "nowhere"])
