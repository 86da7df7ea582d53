"""Standard tasks: a run whose own models and baselines are asked lm-eval's tasks."""

import json

import pytest

import processes
from potstill.cli.compare import comparison, comparison_table
from potstill.errors import UserError
from potstill.evaluation import lm_eval_tasks
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.pipeline.up_to_date import is_done
from potstill.recipe.step import Step
from tiny import llama, padded, save_model, tokenizer, toy_recipe
from toy_tasks import CHOICE, GROUP, ITEMS, WORD, save_tasks

pytestmark = pytest.mark.slow
METRICS = [
    f"{CHOICE}/acc",
    f"{CHOICE}/acc_norm",
    f"{WORD}/perplexity",
    f"{WORD}/acc",
    f"{GROUP}/acc",
    f"{GROUP}/acc_norm",
]


def _overrides(folder):
    """Three tasks and two baselines: one with the run's tokens and a padded head, one with other tokens."""
    listed = [{"task": name, "path": str(save_tasks(folder / "tasks"))} for name in (CHOICE, WORD, GROUP)]
    same = save_model(padded(llama(7), 320), folder / "same")
    other = save_model(padded(llama(8), 301), folder / "other")
    foreign = tokenizer()._tokenizer.from_str(tokenizer()._tokenizer.to_str())
    foreign.add_tokens(["Potsdam"])
    foreign.save(str(other / "tokenizer.json"))
    models = {"same": str(same), "other": str(other)}
    return [f"evaluate.tasks={json.dumps(listed)}", f"evaluate.models={json.dumps(models)}"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("asked")


@pytest.fixture(scope="module")
def recipe(folder):
    return toy_recipe(folder, *_overrides(folder), "seeds=[0, 1]")


@pytest.fixture(scope="module")
def run(recipe, folder):
    """Many tests read it: none may write into it."""
    made = Run(folder / "run")
    run_recipe(recipe, made)
    return made


@pytest.fixture(scope="module")
def found(run):
    return json.loads((run.path("evaluate") / "comparison.json").read_text())


def test_every_model_is_asked_every_task(found):
    rows = {(row["model"], row["metric"]): row for row in found["rows"]}
    for model in ("teacher", "start", "student", "control", "same", "other"):
        assert [metric for name, metric in rows if name == model and "/" in metric] == METRICS
    for (model, metric), row in rows.items():
        if "/" in metric:
            assert row["low"] <= row["value"] <= row["high"], (model, metric)
            assert (row["seeds"] is not None) == (model in ("student", "control"))
    assert rows["teacher", f"{CHOICE}/acc"]["n"] == ITEMS
    assert rows["teacher", f"{GROUP}/acc"]["n"] == ITEMS * 3 // 2


def test_students_are_compared_with_all_others_on_the_same_items(found):
    pairs = [(pair["a"], pair["b"]) for pair in found["paired"] if pair["metric"] == f"{CHOICE}/acc"]
    assert pairs == [("student", other) for other in ("start", "control", "teacher", "same", "other")]
    rows = {(row["model"], row["metric"]): row["value"] for row in found["rows"]}
    for pair in found["paired"]:
        if pair["metric"] in METRICS:
            gap = rows["student", pair["metric"]] - rows[pair["b"], pair["metric"]]
            assert pair["difference"] == pytest.approx(gap, rel=1e-9, abs=1e-9)


def test_the_same_figure_as_lm_eval_gives_on_its_command_line(run, recipe, found, tmp_path):
    model = {"--model": "hf", "--model_args": f"pretrained={run.path('distil/seed-1/student')},dtype=float32"}
    asked = {"--tasks": WORD, "--include_path": recipe.evaluate.tasks[0].path, "--output_path": str(tmp_path)}
    how = {"--device": "cpu", "--batch_size": str(recipe.evaluate.batch_size)}
    options = [word for option in (model | asked | how).items() for word in option]
    done = processes.run("-m", "lm_eval", *options)
    assert done.returncode == 0, done.stderr
    (written,) = tmp_path.rglob("results_*.json")
    theirs = json.loads(written.read_text())["results"]
    rows = {row["metric"]: row for row in found["rows"] if row["model"] == "student"}
    for name in ("perplexity", "acc"):
        value, stderr = theirs[WORD][f"{name},none"], theirs[WORD][f"{name}_stderr,none"]
        assert rows[f"{WORD}/{name}"]["seeds"]["values"][1] == value
        assert found["tasks"]["lm_eval"]["student"][f"{WORD}/{name}"][1] == {"value": value, "stderr": stderr}


def test_an_outside_model_reads_held_out_text_only_with_the_runs_tokens(found):
    read = {row["model"] for row in found["rows"] if row["metric"] == "loss"}
    assert read == {"teacher", "start", "student", "control", "same"}


def test_the_report_and_the_comparison_mark_what_is_within_chance(run, found):
    page = (run.path("report") / "index.html").read_text()
    for metric in METRICS:
        assert metric in page
    assert "corrected (Holm) for all tasks together" in page
    rows = [row for row in comparison([run.folder]) if row["metric"] in METRICS]
    assert {row["beyond_chance"] for row in rows if " - " in row["model"]} <= {True, False}
    shown = comparison_table(rows)
    assert "(stderr " in shown
    assert shown.count("] *") == sum(row.get("beyond_chance") is True for row in rows)


def test_lm_evals_standard_errors_are_recorded_for_parts_of_groups_too(found):
    own = found["tasks"]["lm_eval"]["control"]
    assert {"toy_more/acc", "toy_less/acc_norm", *METRICS} <= set(own)
    assert len(own[f"{GROUP}/acc"]) == 2


def test_every_metric_says_how_it_is_shown(found):
    shown = {metric["name"]: metric for metric in found["tasks"]["metrics"]}
    assert list(shown) == METRICS
    assert shown[f"{WORD}/perplexity"]["better"] == "lower"
    assert not shown[f"{WORD}/perplexity"]["percent"]
    assert (
        shown[f"{CHOICE}/acc"] | {"better": "higher", "percent": True, "unit": "lm-eval, 0-shot"}
        == shown[f"{CHOICE}/acc"]
    )


def test_a_task_file_or_its_data_that_changed_is_asked_again(run, recipe, folder):
    assert is_done(recipe, run, Step("evaluate"))
    data = folder / "tasks" / f"{CHOICE}.jsonl"
    before = data.read_text()
    try:
        data.write_text("\n".join(before.splitlines()[:-1]) + "\n")
        assert not is_done(recipe, run, Step("evaluate"))
    finally:
        data.write_text(before)
    assert is_done(recipe, run, Step("evaluate"))


def test_what_was_scored_before_a_stop_is_not_scored_again(run, recipe, folder, monkeypatch):
    scored, plain = [], lm_eval_tasks.score_task

    def score(*args, **how):
        if len(scored) == 3:
            scored.append("stopped")
            raise KeyboardInterrupt
        scored.append("scored")
        return plain(*args, **how)

    before = json.loads((run.path("evaluate") / "comparison.json").read_text())
    monkeypatch.setattr(lm_eval_tasks, "score_task", score)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, run, until="evaluate", force=["evaluate"])
    run_recipe(recipe, run)
    # Three tasks of two seeds each of student and control, and of four other models.
    assert scored == ["scored"] * 3 + ["stopped"] + ["scored"] * (3 * 8 - 3)
    after = json.loads((run.path("evaluate") / "comparison.json").read_text())
    assert {key: after[key] for key in ("rows", "paired", "tasks")} == {
        key: before[key] for key in ("rows", "paired", "tasks")
    }


def test_a_name_is_refused_before_anything_is_run(tmp_path):
    recipe, run = toy_recipe(tmp_path, "evaluate.tasks=[piqua]"), Run(tmp_path / "run")
    with pytest.raises(
        UserError, match=r"`evaluate\.tasks\.0`: there is no task 'piqua' in lm-eval; did you mean 'piqa'"
    ):
        run_recipe(recipe, run)
    assert not run.path("corpus").exists()


def test_two_entries_may_not_share_a_figure(tmp_path):
    path = str(save_tasks(tmp_path / "tasks"))
    listed = [{"task": "toy_more", "path": path}, {"task": "toy_tag", "path": path}]
    recipe = toy_recipe(tmp_path, f"evaluate.tasks={json.dumps(listed)}")
    with pytest.raises(UserError, match=r"`evaluate\.tasks\.1`: 'toy_more' is asked already by 'toy_more'"):
        lm_eval_tasks.check(recipe)
