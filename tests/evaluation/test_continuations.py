"""Continuations: every model completes the same prompts, and is scored beside random pairs."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from potstill.errors import UserError
from potstill.evaluation import continuations
from potstill.evaluation.candidate_models import CandidateModel
from potstill.generation.decoding import Decoding, Request
from potstill.generation.generate import NamedModel, responses
from potstill.metrics.continuations.keywords import alternatives, contains
from potstill.metrics.continuations.read import read_continuations
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.pipeline.up_to_date import is_done
from potstill.pipeline.work import Work
from potstill.recipe.candidates import Candidate
from potstill.recipe.continuations import ContinuationFile
from potstill.recipe.step import Step
from tiny import llama, save_prompts, tokenizer, toy_recipe

SEEDS = "seeds=[0, 1]"
METRICS = ["em", "rouge_l_precision", "rouge_l_recall", "rouge_l_f", "word_cosine"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("toy")


@pytest.fixture(scope="module")
def given(folder):
    return save_prompts(folder)


@pytest.fixture(scope="module")
def recipe(folder, given):
    sets = json.dumps({"words": given})
    return toy_recipe(folder, f"evaluate.continuations={sets}", SEEDS)


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    """Many tests read it: none may write into it."""
    made = Run(tmp_path_factory.mktemp("runs") / "toy")
    run_recipe(recipe, made)
    return made


def comparison(run):
    return json.loads((run.path("evaluate") / "comparison.json").read_text())


def said(run, model):
    file = run.path("evaluate") / "continuations" / "words" / f"{model}.jsonl"
    return {row["id"]: row for row in map(json.loads, file.read_text().splitlines())}


def test_a_model_says_what_it_says_when_it_is_asked_by_itself(run, given):
    items = read_continuations(ContinuationFile(**given), "key")
    asked = [Request(one.id, [0, *tokenizer()(one.prompt).input_ids]) for one in items]
    alone = responses(NamedModel(llama(0), tokenizer(), "teacher"), asked, Decoding(6, 1), key="key")
    found = said(run, "teacher")
    assert {one.id: one.response for batch in alone for one in batch} == {
        id: row["response"] for id, row in found.items()
    }


def test_every_model_has_every_metric_and_its_random_pairs(run, given):
    found = comparison(run)["rows"]
    rows = {(row["model"], row["metric"]): row for row in found if row["metric"].startswith("words/")}
    models = ("teacher", "start", "student", "control")
    every = {f"words/{metric}{end}" for metric in METRICS for end in ("", "_random")}
    assert set(rows) == {(model, metric) for model in models for metric in every}
    assert {row["n"] for row in rows.values()} == {6}
    assert rows["student", "words/em"]["seeds"]["n"] == 2
    items = read_continuations(ContinuationFile(**given), "key")
    for model, files in {"teacher": ["teacher"], "student": ["student/seed-0", "student/seed-1"]}.items():
        hits = [
            contains(said(run, file)[one.id]["response"], alternatives(one.keyword)) for file in files for one in items
        ]
        assert rows[model, "words/em"]["value"] == pytest.approx(np.mean(hits))


def test_the_student_is_paired_on_the_same_prompts_and_not_by_random_pairs(run):
    found = comparison(run)
    rows = {(row["model"], row["metric"]): row["value"] for row in found["rows"]}
    pairs = [pair for pair in found["paired"] if pair["metric"].startswith("words/")]
    assert {(pair["a"], pair["b"]) for pair in pairs} == {("student", "start"), ("student", "control")}
    assert {pair["metric"] for pair in pairs} == {f"words/{metric}" for metric in METRICS}
    for pair in pairs:
        expected = rows["student", pair["metric"]] - rows[pair["b"], pair["metric"]]
        assert pair["difference"] == pytest.approx(expected, abs=1e-9)


def test_how_far_each_model_is_above_its_own_random_pairs_is_told(run):
    details = json.loads((run.path("evaluate") / "continuations" / "words.json").read_text())
    above = {(pair["a"], pair["metric"]): pair for pair in details["above_random_pairs"]}
    rows = {(row["model"], row["metric"]): row["value"] for row in comparison(run)["rows"]}
    for (model, metric), pair in above.items():
        assert pair["b"] == "random pairs"
        assert pair["difference"] == pytest.approx(rows[model, metric] - rows[model, f"{metric}_random"], abs=1e-9)
    assert len(above) == 4 * len(METRICS)
    assert details["words"]["dimension"] == 3
    assert 0 < details["words"]["share_of_words_with_a_vector"] < 1


def test_the_report_shows_them_and_what_they_took(run):
    page = (run.path("report") / "index.html").read_text()
    for shown in (
        "words: keyword",
        "words: ROUGE-L F1",
        "words: words, random pairs",
        "continuations-words",
        "held-out-text",
    ):
        assert shown in page


def test_what_was_said_before_a_stop_is_not_said_again(recipe, run, tmp_path, monkeypatch):
    recipe = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"batch_size": 2})})
    how = {"symlinks": True, "ignore": shutil.ignore_patterns("evaluate", "report")}
    again, whole = (Run(shutil.copytree(run.folder, tmp_path / name, **how)) for name in ("run", "whole"))
    plain, batches = continuations.responses, []

    def stopped(*args, **how):
        for batch in plain(*args, **how):
            if len(batches) == 4:
                raise KeyboardInterrupt
            batches.append(batch)
            yield batch

    monkeypatch.setattr(continuations, "responses", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, again, until="evaluate")

    def goes_on(*args, **how):
        for batch in plain(*args, **how):
            batches.append(batch)
            yield batch

    monkeypatch.setattr(continuations, "responses", goes_on)
    run_recipe(recipe, again, until="evaluate")
    assert len(batches) == 6 * 3, "six models, three batches each, and none twice"
    run_recipe(recipe, whole, until="evaluate")
    assert comparison(again) == comparison(whole)


def test_prompts_or_vectors_that_changed_are_judged_again(folder, given, tmp_path):
    own = save_prompts(tmp_path)
    recipe, run = toy_recipe(folder, f"evaluate.continuations={json.dumps({'p': own})}"), Run(tmp_path / "run")
    run_recipe(recipe, run, until="evaluate")
    for name in ("vectors.txt", "prompts.jsonl"):
        file = tmp_path / name
        before = file.read_text()
        assert is_done(recipe, run, Step("evaluate"))
        file.write_text("\n".join(before.splitlines()[:-1]) + "\n")
        assert not is_done(recipe, run, Step("evaluate"))
        file.write_text(before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"words": {"package": "no_such_vectors", "file": "x.npy"}},
            r"`evaluate.continuations.p.words.package`.*no-such-vec",
        ),
        ({"words": {"path": "none.txt"}}, r"`evaluate.continuations.p.words.path`: there is no file"),
        (
            {"sentences": {"package": "no_such_model", "folder": "x"}},
            r"`evaluate.continuations.p.sentences.package`.*`null`",
        ),
        ({"path": "none.jsonl"}, r"`evaluate.continuations.p.path`: there is no file"),
    ],
)
def test_what_is_not_there_is_told_before_anything_is_spent(folder, given, tmp_path, change, message):
    recipe, run = (
        toy_recipe(folder, f"evaluate.continuations={json.dumps({'p': given | change})}"),
        Run(tmp_path / "run"),
    )
    with pytest.raises(UserError, match=message):
        run_recipe(recipe, run)
    assert not run.path("teachers").exists()


def test_responses_are_written_in_the_models_own_tokens(run, recipe, given, tmp_path):
    read = []
    model = CandidateModel(Candidate("baseline", "other"), lambda: llama(0), lambda: read.append("own") or tokenizer())
    work = replace(Work(recipe, run, Step("evaluate")), run=Run(tmp_path / "elsewhere"))
    items = read_continuations(ContinuationFile(**given), "key")
    found = continuations.complete_prompts(work, "words", items, model)
    assert read == ["own"]
    assert found == [said(run, "teacher")[one.id]["response"] for one in items]
