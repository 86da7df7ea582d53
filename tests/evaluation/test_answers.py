"""Answers: rules and people judge every answer, and differences are on the same questions."""

import json
import shutil

import numpy as np
import pytest
from datasets import load_from_disk

import toy_questions
from potstill.cli.review import answers_of
from potstill.evaluation.answers import METRICS, JudgedAnswers
from potstill.files.atomic import read_json
from potstill.files.jsonl_log import read_jsonl
from potstill.metrics.answers.decisions import Answer, Decision, exported, write_decisions
from potstill.metrics.answers.extract import extract, reference
from potstill.metrics.bootstrap import Resampling
from potstill.metrics.comparison import compare
from potstill.pipeline.graph import all_steps
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.pipeline.up_to_date import is_done
from potstill.recipe.load import saved_recipe

FEW = Resampling(resamples=500)
WHEN = "2026-11-22T05:00:00+00:00"


@pytest.fixture(scope="module")
def run(made_once):
    """Many tests read it: none may write into it."""
    return Run(made_once("questions", toy_questions.evaluated) / "run")


@pytest.fixture(scope="module")
def recipe(run):
    return saved_recipe(run.folder)


def comparison(run):
    return read_json(run.path("evaluate") / "comparison.json")


def test_all_models_and_metrics_are_there_with_their_company(run):
    rows = {(row["model"], row["metric"]): row for row in comparison(run)["rows"]}
    models = ["teacher", "start", "student base", "student ground-truth", "student placebo", "control"]
    assert sorted(rows) == sorted((model, metric) for model in models for metric in METRICS)
    held_out = len(load_from_disk(run.path("corpus") / "held_out"))
    assert {row["n"] for row in rows.values()} == {held_out}
    assert all((rows[model, "loss"]["seeds"] is None) == (model in ("teacher", "start")) for model in models)
    pairs = {(pair["a"], pair["b"]) for pair in comparison(run)["paired"]}
    students = models[2:5]
    assert pairs == {(student, other) for student in students for other in ("start", "control")} | {
        ("student base", "student placebo")
    }


def test_figures_are_those_of_the_answers(run):
    rows = {(row["model"], row["metric"]): row for row in comparison(run)["rows"]}
    for model, folder in (("start", "start"), ("teacher", "teacher")):
        answers = read_jsonl(run.path("answers") / folder / "answers.jsonl")
        found = [extract(row["response"]) for row in answers]
        right = [one.value == reference(row["reference"]) for one, row in zip(found, answers, strict=True)]
        assert rows[model, "accuracy"]["value"] == np.mean(right)
        assert rows[model, "no_number"]["value"] == np.mean([one.value is None for one in found])
        assert rows[model, "hit_limit"]["value"] == np.mean([row["hit_limit"] for row in answers])
        scores = read_json(run.path("answers") / folder / "scores.json")
        np.testing.assert_allclose(rows[model, "loss"]["value"], sum(scores["nll"]) / sum(scores["tokens"]))


def test_each_answer_s_rule_and_verdict_is_written_down(run):
    lines = read_jsonl(run.path("evaluate") / "verdicts" / "student" / "base" / "seed-1.jsonl")
    assert lines
    assert {line["verdict"] for line in lines} <= {"correct", "wrong", "no answer", "needs review"}
    assert all(line.keys() == {"id", "rule", "answer", "read", "verdict"} for line in lines)


def test_a_person_s_decision_counts_and_only_the_evaluation_runs_again(recipe, run, tmp_path, capsys):
    run = Run(shutil.copytree(run.folder, tmp_path / "run", symlinks=True))
    before = comparison(run)
    row = next(
        row
        for row in read_jsonl(run.path("answers") / "start" / "answers.jsonl")
        if extract(row["response"]).rule == "review"
    )
    answer = Answer("start", *(row[name] for name in ("id", "question", "reference", "response")))
    run.path("review").mkdir()
    decision = Decision.about(answer, str(reference(row["reference"])), "a judge", WHEN)
    write_decisions(run.path("review") / "decisions.csv", [decision])
    capsys.readouterr()
    run_recipe(recipe, run, until="evaluate")
    began = [line for line in capsys.readouterr().out.splitlines() if line.endswith(": begins")]
    assert began == ["evaluate: begins"]
    after, same = comparison(run), 1 / len(load_from_disk(run.path("corpus") / "held_out"))

    def accuracy(found):
        return next(r["value"] for r in found["rows"] if (r["model"], r["metric"]) == ("start", "accuracy"))

    assert accuracy(after) == pytest.approx(accuracy(before) + same)
    assert sum(map(sum, after["undecided"].values())) < sum(map(sum, before["undecided"].values()))
    verdicts = read_jsonl(run.path("evaluate") / "verdicts" / "start.jsonl")
    assert next(line for line in verdicts if line["id"] == row["id"])["rule"] == "person"


def test_a_finished_evaluation_is_finished(recipe, run):
    assert all(is_done(recipe, run, step) for step in all_steps(recipe, until="evaluate"))


def made(right, **more):
    right = np.asarray(right, float)
    fields = {name: np.zeros_like(right) for name in ("hit_limit", "no_number", "nll")}
    return JudgedAnswers(right=right, tokens=np.ones_like(right), undecided=0, **{**fields, **more})


def compared(models):
    def sums(model, metric):
        return [one.sums(metric) for one in models[model]]

    return compare(models, [("student", "control")], METRICS, sums, FEW)


def test_seeds_are_paired_and_a_difference_knows_chance():
    draw = np.random.default_rng(0)
    worse = [draw.random(400) < 0.3 for _ in range(3)]
    better = [one | (draw.random(400) < 0.3) for one in worse]
    models = {"student": [made(one) for one in better], "control": [made(one) for one in worse]}
    _, pairs = compared(models)
    pair = next(pair for pair in pairs if pair.metric == "accuracy")
    by_seed = [one.mean() - other.mean() for one, other in zip(better, worse, strict=True)]
    np.testing.assert_allclose(pair.seeds.values, by_seed)
    assert pair.difference == pytest.approx(np.mean(by_seed))
    assert pair.beyond_chance
    _, same = compared({"student": models["student"], "control": models["student"]})
    assert all(pair.difference == 0 and not pair.beyond_chance for pair in same)


def test_the_export_of_a_review_says_what_the_evaluation_says(run):
    rows = exported(answers_of(run.folder), [])
    found = {(row["model"], row["id"]): row["verdict"] for row in rows}
    for file in (run.path("evaluate") / "verdicts").rglob("*.jsonl"):
        model = str(file.relative_to(run.path("evaluate") / "verdicts").with_suffix(""))
        for line in map(json.loads, file.read_text().splitlines()):
            assert found.pop((model, line["id"])) == line["verdict"]
    assert not found
