"""Snapshot scores: a task selects on half of its items and is reported on the other half."""

import json
from dataclasses import replace

import numpy as np
import pytest

from potstill.errors import UserError
from potstill.evaluation import snapshot_curves, snapshot_scores
from potstill.evaluation.selection_split import split_of
from potstill.evaluation.snapshot_scores import snapshot_meters
from potstill.files.atomic import read_json
from potstill.metrics.bootstrap import bootstrap
from potstill.metrics.lm_eval.load import load_task
from potstill.metrics.lm_eval.score import score_task
from potstill.pipeline import artifacts
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe.candidates import Candidate
from potstill.recipe.conversations import TeacherReading
from potstill.training.snapshots import whole_snapshots
from tiny import save_prompts, tokenizer, toy_recipe
from toy_tasks import CHOICE, GROUP, UNSURE, save_tasks

pytestmark = pytest.mark.slow
ITEMS, STEPS = 40, [2, 4, 6, 8]
ACC, NORM, GROUPED = f"{CHOICE}/acc", f"{CHOICE}/acc_norm", f"{GROUP}/acc"
GIVEN = ("distil.training.max_steps=8", "distil.snapshots=4")


def _tasks(folder, *names):
    return "evaluate.tasks=" + json.dumps([{"task": name, "path": str(folder)} for name in names])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return save_tasks(tmp_path_factory.mktemp("tasks"), ITEMS)


@pytest.fixture(scope="module")
def recipe(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    return toy_recipe(folder, *GIVEN, _tasks(files, CHOICE, GROUP, UNSURE), f"select.by={ACC}")


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    """Many tests read it: none may write into it, except measurements."""
    made = Run(tmp_path_factory.mktemp("chosen") / "run")
    run_recipe(recipe, made)
    return made


@pytest.fixture(scope="module")
def found(run):
    return json.loads((run.path("evaluate") / "comparison.json").read_text())


@pytest.fixture(scope="module")
def rows(run):
    return snapshot_curves.measure(run.folder, "all")


@pytest.fixture(scope="module")
def by_hand(run, files):
    """lm-eval's scores of each of the student's snapshots: step, metric, items."""
    asked = load_task(CHOICE, "k", path=str(files))
    return {
        one.step: score_task(_load(one.folder), tokenizer(), asked).scores
        for one in whole_snapshots(run.path("distil/seed-0"))
    }


def _load(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def _half(score, split):
    items = score.items[CHOICE]
    own = [item for at, item in enumerate(items) if split_of(f"{CHOICE}/{at}") == split]
    assert 2 <= len(own) < len(items)
    return np.mean(own), len(own)


def test_a_snapshot_is_chosen_on_half_of_the_items_and_reported_on_the_others(run, found, by_hand):
    told = json.loads((run.path("select/student/seed-0") / "selection.json").read_text())
    assert told["by"] == {ACC: 1}
    assert told["better"] == {ACC: "higher"}
    assert [one["name"] for one in told["candidates"]] == [f"step {step}" for step in STEPS]
    for step, candidate in zip(STEPS, told["candidates"], strict=True):
        value, count = _half(by_hand[step][ACC], "selection")
        assert candidate["value"] == pytest.approx(value, rel=1e-12)
        assert {row["n"] for row in candidate["rows"]} == {count}
    chosen = by_hand[int(told["chosen"].removeprefix("step "))]
    reported = {row["metric"]: row for row in found["rows"] if row["model"] == "student"}
    for metric in (ACC, NORM):
        value, count = _half(chosen[metric], "reporting")
        assert (reported[metric]["value"], reported[metric]["n"]) == (pytest.approx(value, rel=1e-12), count)
    assert reported[GROUPED]["n"] == ITEMS * 3 // 2, "nothing is chosen by it: all of it is reported"


def test_lm_evals_own_figures_are_recorded_of_all_items(found, run, by_hand):
    step = run.manifest("select/student/seed-0")["summary"]["kept_step"]
    (own,) = found["tasks"]["lm_eval"]["student"][ACC]
    assert own == {"value": by_hand[step][ACC].value, "stderr": by_hand[step][ACC].stderr}


def test_every_snapshot_has_its_figures_on_both_halves(rows, by_hand, found):
    figures = {(row["model"], row["step"], row["metric"], row["split"]): row for row in rows}
    for step in STEPS:
        for metric in (ACC, NORM):
            for split in ("selection", "reporting"):
                row = figures["student", step, metric, split]
                value, count = _half(by_hand[step][metric], split)
                assert (row["value"], row["n"]) == (pytest.approx(value, rel=1e-12), count)
                assert row["low"] <= row["value"] <= row["high"]
                assert row["better"] == "higher"
    for model, step in (("teacher", None), ("start", 0)):
        table = {row["metric"]: row["value"] for row in found["rows"] if row["model"] == model}
        for metric in (ACC, NORM, GROUPED):
            assert figures[model, step, metric, "reporting"]["value"] == pytest.approx(table[metric], rel=1e-12)
    assert not [row for row in rows if row["metric"] == GROUPED and row["split"] == "selection"]


def test_what_is_measured_is_shown(run, rows):
    head, *lines = snapshot_curves.curves_table(rows).splitlines()
    assert f"{ACC}, validation" in head
    assert f"{ACC}, held out" in head
    assert len(lines) == 2 + 2 * len(STEPS)


def test_the_report_is_made_anew_and_alone_and_draws_how_it_went(run, recipe, rows):
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("manifest.json")}
    run_recipe(recipe, run)
    assert [path.parent.name for path, moment in before.items() if path.stat().st_mtime_ns != moment] == ["report"]
    page = (run.path("report") / "index.html").read_text()
    for metric in (ACC, NORM, GROUPED):
        for step in STEPS:
            assert f", step {step}: {metric} " in page
    assert ", chosen" in page


def test_nothing_is_asked_again(run, rows, monkeypatch):
    monkeypatch.setattr(snapshot_scores, "score_task", lambda *_, **how: pytest.fail("it is known already"))
    assert snapshot_curves.measure(run.folder, "all") == rows


def test_a_figure_that_nothing_says_the_certainty_of_is_recorded_and_not_compared(run, found, rows):
    metric = f"{UNSURE}/brier_score"
    assert found["tasks"]["lm_eval"]["student"][metric][0]["stderr"] is None
    shown = [found["rows"], found["paired"], rows]
    assert metric not in {row["metric"] for each in shown for row in each}
    assert metric not in {one["name"] for one in found["tasks"]["metrics"]}
    assert f"{UNSURE}/acc" in {row["metric"] for row in found["rows"]}
    assert metric not in (run.path("report") / "index.html").read_text()


@pytest.mark.parametrize(
    ("by", "hint"),
    [
        (f"{CHOICE}/ac", rf"no task has the figure '{CHOICE}/ac'; did you mean `{ACC}`\?"),
        (f"{UNSURE}/brier_score", rf"'toy_unsure/brier_score' is made of all items at once.*, {UNSURE}/acc"),
        (f"{UNSURE}/acc_norm", rf"'toy_unsure/acc_norm' has no direction: .*; choose by another, .*{UNSURE}/acc"),
        (f"{GROUP}/exact_match", rf"no task has the figure '{GROUP}/exact_match'; "),
    ],
)
def test_what_cannot_be_chosen_by_is_refused_before_anything_is_run(files, tmp_path, by, hint):
    recipe, run = (
        toy_recipe(tmp_path, *GIVEN, _tasks(files, CHOICE, UNSURE, GROUP), f"select.by={by}"),
        Run(tmp_path / "run"),
    )
    with pytest.raises(UserError, match=hint):
        run_recipe(recipe, run)
    assert not run.path("corpus").exists()


def test_snapshots_are_chosen_by_what_they_say_to_half_of_the_prompts(tmp_path):
    given = save_prompts(tmp_path, count=24)
    prompts = f"evaluate.continuations={json.dumps({'facts': given})}"
    recipe = toy_recipe(tmp_path, *GIVEN, prompts, "select.by={facts/word_cosine: 1, facts/em: 1}", "seeds=[0]")
    made = Run(tmp_path / "run")
    run_recipe(recipe, made)
    chosen = json.loads((made.path("select") / "student" / "seed-0" / "selection.json").read_text())
    rows = json.loads((made.path("evaluate") / "comparison.json").read_text())["rows"]
    looked_at = {row["n"] for each in chosen["candidates"] for row in each["rows"]}
    reported = {row["n"] for row in rows if row["metric"].startswith("facts/")}
    assert looked_at == {sum(split_of(f"facts/{number}") == "selection" for number in range(1, 25))}
    assert reported == {24 - next(iter(looked_at))}
    step = int(chosen["chosen"].removeprefix("step "))
    on_the_way = {
        row["metric"]: row["value"]
        for row in snapshot_curves.measure(made.folder, "all")
        if (row["model"], row["step"], row["split"]) == ("student", step, "reporting")
    }
    for row in rows:
        if row["model"] == "student" and row["metric"] in ("facts/word_cosine", "facts/rouge_l_f"):
            assert on_the_way[row["metric"]] == pytest.approx(row["value"], rel=1e-9)


def test_a_figure_that_no_prompts_have_is_refused_at_once(tmp_path):
    prompts = f"evaluate.continuations={json.dumps({'facts': save_prompts(tmp_path)})}"
    with pytest.raises(UserError, match=r"`select.by`: 'facts/emm' is not measured here; did you mean `facts/em`"):
        toy_recipe(tmp_path, *GIVEN, prompts, "select.by=facts/emm")


@pytest.mark.parametrize("teacher", [None, TeacherReading(system="You know coins.", sequence_length=500)])
def test_a_snapshot_is_measured_on_the_same_turns_as_the_student(chat_work, teacher):
    recipe = chat_work.recipe
    corpus = recipe.corpus.model_copy(update={"teacher": teacher})
    work = replace(chat_work, recipe=recipe.model_copy(update={"corpus": corpus}))
    student = Candidate("student", None, 0)
    (meter,) = snapshot_meters(work, student, ["reporting"])
    (figure,) = meter.score(artifacts.trained_model(work, student), "the student")
    rows = read_json(chat_work.run.path("evaluate") / "comparison.json")["rows"]
    expected = next(row for row in rows if (row["model"], row["metric"]) == ("student", "loss"))
    assert figure.metric == "loss"
    found = bootstrap("student", "loss", figure.sums)
    assert found.value == pytest.approx(expected["value"])
    assert found.n == expected["n"]
